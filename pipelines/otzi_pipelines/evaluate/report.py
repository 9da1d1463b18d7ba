"""What `otzi evaluate` says: numbers with their definitions, as JSON and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.metrics import N_BINS
from otzi_pipelines.evaluate.boundary import BoundaryDistance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.metrics import Agreement

__all__ = ["DEFINITIONS", "Evaluation", "pooled"]

DEFINITIONS = {
    "voxels": "voxels of the whole volume of which both products say something; the others are "
    "unlabelled_voxels, and left out",
    "confusion": "voxels of a true class (row) whose most probable class is that of the column; "
    "of equal ones the first",
    "dice": "2 TP / (2 TP + FP + FN) of a class, by the most probable class of each voxel",
    "macro_dice": "mean Dice of the classes that are there or predicted, each counting alike",
    "soft_dice": "2 Σ p t / Σ (p + t) of a class, by its probability p and its truth t",
    "micro_f1": "micro F1 (voxel accuracy): 2 TP / (2 TP + FP + FN) over all classes together, "
    "the share of voxels that are right; large where most is background; published as F1 of four "
    "classes",
    "foreground_f1": "2 TP / (2 TP + FP + FN) of all classes but the first as one; published as "
    "F1 of two classes",
    "cross_entropy": "mean of -log(probability of the truth), in nats; a probability of less than "
    "1e-7, or than half a step where it is stored as uint8, counts as that",
    "calibration_error": f"expected calibration error: in {N_BINS} equal bins of the largest "
    "probability, its mean against the share of voxels that are right, weighted by voxels",
    "class_calibration_error": f"the same for a class: in {N_BINS} equal bins of its probability, "
    "the mean against the share of the truth",
    "boundary_angstrom": "distance from each voxel that shares a face with another class to the "
    "nearest such voxel of the other product, both ways together: mean and 95th percentile, at a "
    "level of the pyramid; pooled: mean over the tomograms where both have some",
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The agreement with a truth over a volume, or over several."""

    classes: tuple[str, ...]
    agreement: Agreement
    n_volume_voxels: int
    is_soft: bool
    """Whether the prediction is one of probabilities, which can be calibrated."""
    boundaries: tuple[BoundaryDistance, ...] | None = None
    boundary_level: int | None = None
    """Of the pyramid, where there is one for all."""

    def to_json(self) -> dict[str, Any]:
        """Give all of it as plain JSON; what is not defined is null."""
        document = self.agreement.summary(self.classes)
        document["unlabelled_voxels"] = self.n_volume_voxels - document["voxels"]
        document["soft_dice"] = self._by_class(self.agreement.soft_dice)
        document["class_calibration_error"] = self._by_class(self.agreement.class_calibration_error)
        document["confusion"] = self.agreement.confusion.tolist()
        if not self.is_soft:
            undefined = ("cross_entropy", "calibration_error", "class_calibration_error")
            document |= dict.fromkeys(undefined)
        if self.boundaries is not None:
            document["boundary_angstrom"] = {
                "level": self.boundary_level,
                "mean": self._by_class([b.mean_angstrom for b in self.boundaries]),
                "percentile95": self._by_class([b.percentile95_angstrom for b in self.boundaries]),
            }
        return document

    def to_text(self) -> str:
        """Give the numbers as lines for people."""
        found = self.to_json()
        columns = {"Dice": found["dice"], "soft Dice": found["soft_dice"]}
        if self.is_soft:
            columns["calibration error"] = found["class_calibration_error"]
        if self.boundaries is not None:
            columns["boundary Å"] = found["boundary_angstrom"]["mean"]
            columns["95 % Å"] = found["boundary_angstrom"]["percentile95"]
        wide = max(map(len, ("class", *self.classes)))
        lines = ["  ".join(["class".ljust(wide), *columns])]
        for name in self.classes:
            cells = [_cell(values[name]).rjust(len(head)) for head, values in columns.items()]
            lines.append("  ".join([name.ljust(wide), *cells]))
        lines.append(
            f"macro Dice {_cell(found['macro_dice'])}   micro F1 (voxel accuracy) "
            f"{_cell(found['micro_f1'])}   foreground F1 {_cell(found['foreground_f1'])}"
        )
        if self.is_soft:
            lines.append(
                f"cross-entropy {_cell(found['cross_entropy'])} nats   "
                f"calibration error {_cell(found['calibration_error'])}"
            )
        if self.boundaries is not None:
            level = "of each" if self.boundary_level is None else self.boundary_level
            lines.append(f"boundaries at level {level} of the pyramid")
        return "\n".join([*lines, *self._confusion_lines()])

    def _by_class(self, values: Any) -> dict[str, float | None]:
        plain = (None if np.isnan(value) else float(value) for value in values)
        return dict(zip(self.classes, plain, strict=True))

    def _confusion_lines(self) -> list[str]:
        wide = max(map(len, ("truth", *self.classes)))
        rows = self.agreement.confusion
        cell = max(len(f"{rows.max():,}"), *map(len, self.classes))
        lines = ["truth".ljust(wide) + "".join(f"  {name:>{cell}}" for name in self.classes)]
        for name, row in zip(self.classes, rows, strict=True):
            lines.append(name.ljust(wide) + "".join(f"  {n:>{cell},}" for n in row))
        return lines


def pooled(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Give the evaluation over the voxels of all, which are alike in classes and kind.

    Distances of boundaries are the mean of the tomograms'.
    """
    first, *others = evaluations
    boundaries = [e.boundaries for e in evaluations if e.boundaries is not None]
    by_class = zip(*boundaries, strict=True)
    levels = {e.boundary_level for e in evaluations}
    return Evaluation(
        first.classes,
        sum((other.agreement for other in others), first.agreement),
        sum(e.n_volume_voxels for e in evaluations),
        first.is_soft,
        boundaries=tuple(map(BoundaryDistance.mean_of, by_class)) or None,
        boundary_level=levels.pop() if len(levels) == 1 else None,
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
