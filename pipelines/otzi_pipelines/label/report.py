"""What a person wants to know after labelling: how well the forest knows the strokes, and speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otzi.events import Advanced, Event, Finished, Listener, ignore
from otzi.memory import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otzi.pseudo.forest import StrokeForest

__all__ = ["RunReport", "forest_facts", "forest_text"]

_MOST_CHANNELS = 5


def forest_facts(forest: StrokeForest) -> dict[str, Any]:
    """Give what a forest is and what it has learned, as plain JSON.

    ``oob_confusion`` has a row for each true class and a column for each decided one; importances
    sum to 1, over channels, over features and over scales.
    """
    training, bank = forest.training, forest.bank
    confusion = training.oob_confusion
    return {
        "sha256": forest.sha256,
        "n_trees": len(forest.roots),
        "n_voxels": dict(zip(forest.classes, training.n_voxels, strict=True)),
        "oob_accuracy": training.oob_accuracy,
        "oob_confusion": confusion and [list(row) for row in confusion],
        "importance": training.importance,
        "importance_by_feature": _summed(
            (feature for feature, _ in bank.origins), training.importance
        ),
        "importance_by_scale": _summed(
            (f"{scale:g}" for _, scale in bank.origins), training.importance
        ),
    }


def forest_text(facts: Mapping[str, Any]) -> str:
    """Give a short table of `forest_facts`: confusion, and what matters most."""
    lines = []
    if facts["oob_confusion"]:
        lines += _confusion_lines(tuple(facts["n_voxels"]), facts["oob_confusion"])
        lines.append(
            f"{facts['oob_accuracy']:.1%} right of the stroke voxels that a tree has not seen: "
            "they flatter, neighbours are alike"
        )
    for what, of in (
        ("importance_by_feature", "feature"),
        ("importance_by_scale", "scale"),
        ("importance", "channel"),
    ):
        ranked = sorted(facts[what].items(), key=lambda item: -item[1])[:_MOST_CHANNELS]
        listed = ", ".join(f"{name} {share:.0%}" for name, share in ranked)
        lines.append(f"importance by {of}: {listed}")
    return "\n".join(lines)


@dataclass(slots=True)
class RunReport:
    """A listener that keeps how long the labelling of a tomogram took; it passes all events on."""

    listen: Listener = ignore
    seconds: dict[str, float] = field(default_factory=dict)
    """Of every piece of work that ended, in that order; the last one holds all others."""
    n_voxels: int = 0
    """Labelled in this run: fewer than the tomogram has where an interrupted run went on."""
    peak_memory_bytes: int = 0
    """Of the process."""

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case Advanced("labels", units):
                self.n_voxels += units
            case Finished(name, seconds, peak):
                self.seconds[name] = seconds
                self.peak_memory_bytes = max(self.peak_memory_bytes, peak)
        self.listen(event)

    @property
    def mvoxel_per_second(self) -> float:
        """Rate of the labelling itself, without features of strokes and training."""
        return self.n_voxels / 1e6 / max(self.seconds["labels"], 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain JSON."""
        *stages, (_, total) = self.seconds.items()
        return {
            "seconds": round(total, 3),
            "stages": {name: round(seconds, 3) for name, seconds in stages},
            "n_voxels": self.n_voxels,
            "mvoxel_per_second": round(self.mvoxel_per_second, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    def __str__(self) -> str:
        *stages, (_, total) = self.seconds.items()
        listed = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages)
        return (
            f"{self.n_voxels / 1e6:.1f} Mvoxel in {total:.1f} s: {listed} "
            f"({self.mvoxel_per_second:.2f} Mvoxel/s); "
            f"peak memory {format_bytes(self.peak_memory_bytes)}"
        )


def _summed(groups: Iterable[str], importance: Mapping[str, float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for group, share in zip(groups, importance.values(), strict=True):
        sums[group] = sums.get(group, 0.0) + share
    return {group: round(share, 6) for group, share in sums.items()}


def _confusion_lines(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    width = max(10, *(len(name) + 2 for name in classes))
    lines = ["drawn as".ljust(width) + "".join(name.rjust(width) for name in classes) + "   right"]
    for i, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        right = f"{row[i] / sum(row):8.1%}" if sum(row) else "       –"
        lines.append(name.ljust(width) + "".join(f"{n:{width},}" for n in row) + right)
    return lines
