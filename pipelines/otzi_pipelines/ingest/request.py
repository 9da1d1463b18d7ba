"""A source file to be ingested: under which id, how, and in which state it must be found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otzi.errors import Locked, SourceError, TemporaryFailure
from otzi_pipelines.ingest.source_files import file_state
from otzi_pipelines.ingest.sources import Reading

if TYPE_CHECKING:
    from pathlib import Path

    from otzi.errors import OtziError
    from otzi_pipelines.ingest.options import Fill

__all__ = ["Request", "Seal"]


@dataclass(frozen=True, slots=True)
class Seal:
    """The state in which a file was found to be complete; in any other it is not taken."""

    n_bytes: int
    mtime_ns: int
    sha256: str | None = None
    """That its bytes must have, where somebody has said so."""


@dataclass(frozen=True, slots=True)
class Request:
    """A source file, and how it becomes a tomogram."""

    path: Path
    id: str
    is_named: bool = False
    """Whether the id was chosen for these bytes, whether or not others have the same."""
    preset: str = "exact"
    reading: Reading = field(default_factory=Reading)
    nonfinite: Fill = None
    update: bool = False
    """Whether it replaces a tomogram of its id."""
    seal: Seal | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides what is stored, beside the bytes of the file."""
        size = self.reading.voxel_size
        recipe: dict[str, Any] = {
            "preset": self.preset,
            "voxel_size_angstrom": size and list(size),
        }
        if self.nonfinite is not None:
            recipe["nonfinite"] = self.nonfinite
        return recipe

    def may_be_postponed(self, error: OtziError) -> bool:
        """Tell whether the file is to be tried later, since it failed by this error.

        Only a sealed one is: it has changed since, or what failed may not fail again.
        """
        if self.seal is None:
            return False
        if isinstance(error, Locked) or isinstance(error.__cause__, TemporaryFailure):
            return True
        try:
            return file_state(self.path) != (self.seal.n_bytes, self.seal.mtime_ns)
        except SourceError:
            return True
