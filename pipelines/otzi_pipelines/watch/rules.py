"""The rules of a watched folder, from TOML: what is ignored, and how files are taken."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from otzi.errors import ConfigurationError
from otzi.settings import STRICT
from otzi.store.presets import checked_preset
from otzi_pipelines.ingest.find import tomogram_id
from otzi_pipelines.ingest.options import parse_nonfinite
from otzi_pipelines.watch.settle import Patience

if TYPE_CHECKING:
    from pathlib import Path

    from otzi_pipelines.ingest.options import Fill

__all__ = ["FolderRule", "WatchRules"]

_FIELDS = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True, slots=True)
class FolderRule:
    """How the files of some folders are taken; the keys of a table ``[[folder]]``.

    Raises
    ------
    ConfigurationError
        If a value cannot be meant.
    """

    __pydantic_config__ = STRICT

    match: str = "*"
    """Pattern of the folder's path below the watched one, where ``*`` goes across ``/``; that
    itself is ``.``."""
    ignore: bool = False
    """Leave these folders alone."""
    id: str = "{stem}"
    """Of the tomogram; ``{stem}`` is that of the file, ``{folder}`` the name of its folder,
    ``{path}`` the path of that below the watched one."""
    preset: str = "exact"
    voxel_size_angstrom: float | tuple[float, float, float] | None = None
    """In place of the header's: one number, or z, y, x."""
    as_volume: bool = False
    """Take stacks of images as volumes."""
    nonfinite: str = "keep"
    """``keep``, ``fill``, or ``fill=VALUE``, for voxels that are not finite."""
    settle_seconds: float | None = None
    """In place of those of all folders."""

    def __post_init__(self) -> None:
        checked_preset(self.preset)
        if self.preset == "exact" and self.fill is not None:
            raise ConfigurationError(
                f"nonfinite = {self.nonfinite!r} changes voxels, preset = 'exact' never does: "
                "drop one"
            )
        unknown = set(_FIELDS.findall(self.id)) - {"stem", "folder", "path"}
        if unknown or not self.id:
            raise ConfigurationError(
                f"id = {self.id!r}: it is made of {{stem}}, {{folder}}, {{path}} and text"
            )
        sizes = self.voxel_size or (1.0,)
        if min(sizes) <= 0:
            raise ConfigurationError(
                f"voxel_size_angstrom = {self.voxel_size_angstrom}: give Å above 0"
            )

    @property
    def fill(self) -> Fill:
        """What stands in for voxels that are not finite."""
        return parse_nonfinite(self.nonfinite)

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """Spacing z, y, x in ångström, if it is given."""
        size = self.voxel_size_angstrom
        return (size, size, size) if isinstance(size, float) else size

    def tomogram_id(self, path: Path, watched: Path) -> str:
        """Give the id of a file's tomogram."""
        below = path.parent.relative_to(watched)
        parts = {"folder": path.parent.name, "path": "_".join(below.parts)}
        text = _FIELDS.sub(lambda match: parts.get(match[1], match[0]), self.id)
        return tomogram_id(path, text)


_AS_IT_IS = FolderRule()


@dataclass(frozen=True, slots=True)
class WatchRules:
    """The rules of a watched folder; the keys of ``--rules FILE.toml``.

    Raises
    ------
    ConfigurationError
        If a value cannot be meant.
    """

    __pydantic_config__ = STRICT

    settle_seconds: float = 30.0
    """For so long a complete file must not have changed."""
    stall_seconds: float = 600.0
    """After so long without a change a file that is cut short is given up."""
    ignore: tuple[str, ...] = ()
    """Patterns of names, or of paths below the watched folder."""
    may_be_empty: bool = False
    """Whether the folder may be empty though there were files before."""
    notify: str | None = None
    """An address for JSON by POST, or a command that gets it on standard input."""
    folder: tuple[FolderRule, ...] = field(default=())
    """The first that matches decides."""

    def __post_init__(self) -> None:
        if self.settle_seconds < 0 or self.stall_seconds < self.settle_seconds:
            raise ConfigurationError(
                f"settle_seconds = {self.settle_seconds:g}, stall_seconds = "
                f"{self.stall_seconds:g}: they must be 0 or more, and the second the larger"
            )

    def rule(self, path: Path, watched: Path) -> FolderRule:
        """Give the rule for a file, which may be to leave it alone."""
        if not (self.ignore or self.folder):
            return _AS_IT_IS
        below = path.relative_to(watched)
        if any(
            fnmatchcase(path.name, pattern) or fnmatchcase(below.as_posix(), pattern)
            for pattern in self.ignore
        ):
            return FolderRule(ignore=True)
        folder = below.parent.as_posix()
        rules = (rule for rule in self.folder if fnmatchcase(folder, rule.match))
        return next(rules, _AS_IT_IS)

    def patience(self, rule: FolderRule) -> Patience:
        """Give how long files under a rule must have been quiet."""
        settle = self.settle_seconds if rule.settle_seconds is None else rule.settle_seconds
        return Patience(settle, max(settle, self.stall_seconds))
