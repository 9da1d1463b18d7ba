"""The class table: which classes there are, in which order, in which colours.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otzi.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "DEFAULT_CLASSES",
    "DENSITY_CHANNEL",
    "ClassTable",
    "SegmentClass",
    "is_shader_name",
    "rgb_of",
]

_FOREGROUND = "foreground"
"""All classes but the background, where they are one."""

DENSITY_CHANNEL = "density"
"""The channel beside those of the classes in ``view``: no class has this name."""

_NAME = re.compile(r"(?!.*__)[a-z][a-z0-9_]{0,31}")
_COLOR = re.compile(r"#[0-9a-f]{6}")

# The colours of the published viewer for the classes it knows, and a palette for all others.
_KNOWN_COLORS = {
    "background": "#0c967b",
    "membrane": "#c79aab",
    "spikes": "#cf1f61",
    "lumen": "#223378",
    "cytoplasm": "#3f6fb5",
}
_PALETTE = ("#e0a030", "#6fb04a", "#8a5fc0", "#d86a4a", "#45a5b5", "#b0b040", "#c060a0", "#708090")


def is_shader_name(name: str) -> bool:
    """Tell whether a name may become part of names in GLSL, which reserves those with ``__``."""
    return bool(_NAME.fullmatch(name))


def rgb_of(color: str) -> tuple[float, float, float]:
    """Give red, green and blue in [0, 1], as written (sRGB), of ``#rrggbb``."""
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


@dataclass(frozen=True, slots=True)
class SegmentClass:
    """One class of voxels."""

    name: str
    """Lower case, as it appears in strokes, in channel labels and in shader text."""
    color: str
    """``#rrggbb``."""

    def __post_init__(self) -> None:
        if not is_shader_name(self.name):
            raise UsageError(
                f"class name {self.name!r}: use 1 to 32 lower-case letters, digits or single '_', "
                "beginning with a letter"
            )
        if self.name == DENSITY_CHANNEL:
            raise UsageError(
                f"class name {self.name!r} is that of the tomogram's own channel: choose another"
            )
        if not _COLOR.fullmatch(self.color):
            raise UsageError(f"colour {self.color!r} of class {self.name!r}: write it as '#rrggbb'")

    @property
    def rgb(self) -> tuple[float, float, float]:
        """Red, green and blue in [0, 1], as written (sRGB)."""
        return rgb_of(self.color)


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The classes in the order of the channels; the first is the background."""

    classes: tuple[SegmentClass, ...]

    def __post_init__(self) -> None:
        names = self.names
        if len(names) < 2:
            raise UsageError(f"a class table needs at least 2 classes, not {list(names)}")
        if len(set(names)) != len(names):
            raise UsageError(f"class names must differ: {', '.join(names)}")
        if len(names) > 254:
            raise UsageError(f"{len(names)} classes, at most 254 fit into a uint8 label")

    @classmethod
    def named(cls, names: Sequence[str], colors: Mapping[str, str] | None = None) -> ClassTable:
        """Give the table of these names, with known or palette colours where none is given."""
        colors = {**_KNOWN_COLORS, **(colors or {})}
        palette = iter(_PALETTE * (1 + len(names) // len(_PALETTE)))
        return cls(tuple(SegmentClass(n, colors.get(n) or next(palette)) for n in names))

    @classmethod
    def from_json(cls, document: Sequence[Mapping[str, str]]) -> ClassTable:
        """Give the table that `to_json` wrote."""
        return cls(tuple(SegmentClass(entry["name"], entry["color"]) for entry in document))

    def to_json(self) -> list[dict[str, str]]:
        """Give the table as plain lists and dictionaries."""
        return [{"name": c.name, "color": c.color} for c in self.classes]

    @property
    def merged(self) -> ClassTable:
        """The background, and all other classes as one, the foreground."""
        return ClassTable((self.classes[0], SegmentClass(_FOREGROUND, _PALETTE[0])))

    def having(self, names: Sequence[str]) -> ClassTable | None:
        """Give this table or its `merged` one, whichever has these classes in any order."""
        tables = (self, self.merged)
        return next((t for t in tables if sorted(t.names) == sorted(names)), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in channel order."""
        return tuple(c.name for c in self.classes)

    def index(self, name: str) -> int:
        """Give the channel of a class.

        Raises
        ------
        NotFoundError
            If there is no such class; the message lists those there are.
        """
        if name not in self.names:
            raise NotFoundError(f"no class {name!r}: the classes are {', '.join(self.names)}")
        return self.names.index(name)

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[SegmentClass]:
        return iter(self.classes)

    def __getitem__(self, index: int) -> SegmentClass:
        return self.classes[index]


DEFAULT_CLASSES = ClassTable.named(("background", "membrane", "spikes", "lumen"))
"""The classes of the published method, in its order."""
