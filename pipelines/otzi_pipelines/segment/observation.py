"""What was seen of a whole volume of probabilities, and whether it is as it must be.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from otzi.errors import VerificationError

__all__ = ["Observation", "Seam"]


@dataclass(frozen=True, slots=True)
class Seam:
    """How one class changes along one axis, as a mean |difference| of neighbouring voxels."""

    axis: str
    """``z``, ``y`` or ``x``."""
    name: str
    """Of the class."""
    at_tiles: float | None
    """Across the planes where the contributing tiles change; None where there are none."""
    elsewhere: float | None
    """Across all other planes."""

    @property
    def ratio(self) -> float | None:
        """About 1 without seams; None without tile planes, or where nothing changes elsewhere."""
        if self.at_tiles is None or not self.elsewhere:
            return None
        return self.at_tiles / self.elsewhere


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of a whole volume of probabilities."""

    n_cells: int
    """Of the plan; as many as tiles."""
    n_voxels: int
    """Of the volume."""
    covered_voxels: int
    """Written at least once."""
    repeated_voxels: int
    """Written more than once."""
    largest_sum_error: float
    """The largest |Σp − 1| of a voxel."""
    sum_tolerance: float
    """What storing allows: a step, or the rounding of all classes."""
    wrong_sum_voxels: int
    """With an error beyond that."""
    seams: tuple[Seam, ...]
    """Of every axis and class."""

    def check(self, of: str) -> None:
        """Make sure that every voxel of `of` was written once, and sums to 1.

        Raises
        ------
        VerificationError
            Otherwise.
        """
        if self.covered_voxels < self.n_voxels or self.repeated_voxels:
            raise VerificationError(
                f"{of}: {self.n_voxels - self.covered_voxels} of {self.n_voxels} voxels were not "
                f"written, {self.repeated_voxels} more than once: nothing is published, run it "
                "again and report it"
            )
        if self.wrong_sum_voxels:
            raise VerificationError(
                f"{of}: the probabilities of {self.wrong_sum_voxels} voxels miss a sum of 1 by up "
                f"to {self.largest_sum_error:.4g}, storing allows {self.sum_tolerance:.4g}: "
                "nothing is published, run it again and report it"
            )

    def to_json(self) -> dict[str, Any]:
        """Give the observation as plain JSON."""
        return {
            "coverage": {
                "share": self.covered_voxels / self.n_voxels,
                "n_voxels": self.n_voxels,
                "covered_voxels": self.covered_voxels,
                "repeated_voxels": self.repeated_voxels,
            },
            "sum": {
                "largest_error": self.largest_sum_error,
                "tolerance": self.sum_tolerance,
                "wrong_voxels": self.wrong_sum_voxels,
            },
            "seams": [
                {
                    "axis": seam.axis,
                    "class": seam.name,
                    "at_tiles": seam.at_tiles,
                    "elsewhere": seam.elsewhere,
                    "ratio": seam.ratio,
                }
                for seam in self.seams
            ],
        }
