"""OME-Zarr 0.5 metadata: what our products say of themselves, and how it is read back.  Pure.

Voxel centres of level i lie at ``v·2^i·index + v·(2^i − 1)/2`` ångström, v being the spacing of
level 0: its voxels are the 2×2×2 blocks of the level above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otzi.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Multiscale", "level_scale", "level_translation"]

VERSION = "0.5"
_ALIASES = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4}

Spacing = tuple[float, float, float]


def level_scale(spacing_angstrom: Spacing, level: int) -> Spacing:
    """Give the spacing of a level, z, y, x in ångström."""
    z, y, x = (v * 2**level for v in spacing_angstrom)
    return z, y, x


def level_translation(spacing_angstrom: Spacing, level: int) -> Spacing:
    """Give the centre of a level's first voxel, z, y, x in ångström."""
    z, y, x = (v * (2**level - 1) / 2 for v in spacing_angstrom)
    return z, y, x


@dataclass(frozen=True, slots=True)
class Multiscale:
    """A pyramid of arrays in z, y, x, with channels before them or not."""

    name: str
    """What a viewer calls it."""
    spacing_angstrom: Spacing
    """Of level 0, in z, y, x."""
    n_levels: int
    """Number of arrays; level i lies at path ``i``."""
    channels: tuple[str, ...] | None = None
    """Channel labels, where there is a channel axis."""
    colors: tuple[str, ...] | None = None
    """``#rrggbb`` for each channel; for each label, which may be transparent: ``#rrggbbaa``."""
    window: tuple[float, float, float, float] | None = None
    """Minimum, start, end and maximum of the contrast of each channel."""
    downsample: str = "mean"
    """How levels were made: ``mean`` or ``mode``."""
    is_labels: bool = False
    """Whether voxels are class numbers."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes: ``c, z, y, x`` or ``z, y, x``."""
        return ("z", "y", "x") if self.channels is None else ("c", "z", "y", "x")

    def to_json(self) -> dict[str, Any]:
        """Give the value of the attribute ``ome``."""
        axes: list[dict[str, str]] = [
            {"name": name, "type": "space", "unit": "angstrom"} for name in ("z", "y", "x")
        ]
        if self.channels is not None:
            axes.insert(0, {"name": "c", "type": "channel"})
        image = {
            "name": self.name,
            "axes": axes,
            "datasets": [self._dataset(level) for level in range(self.n_levels)],
            "type": self.downsample,
            "metadata": {"description": f"2x2x2 {self.downsample} of the level before"},
        }
        document: dict[str, Any] = {"version": VERSION, "multiscales": [image]}
        if self.is_labels:
            document["image-label"] = self._image_label()
        elif self.window is not None:
            document["omero"] = {"channels": self._omero_channels()}
        return document

    @classmethod
    def from_json(cls, attributes: Mapping[str, Any]) -> Multiscale:
        """Give the multiscale of a group's attributes, written by us or by others.

        Raises
        ------
        ConfigurationError
            If there is none, or its axes are no z, y, x in a unit of length.
        """
        try:
            ome = attributes["ome"]
            image = ome["multiscales"][0]
            names = tuple(axis["name"] for axis in image["axes"])
            scale = image["datasets"][0]["coordinateTransformations"][0]["scale"]
            units = [_ALIASES[axis.get("unit", "angstrom")] for axis in image["axes"][-3:]]
        except (KeyError, IndexError, TypeError) as error:
            raise ConfigurationError(f"no OME-Zarr 0.5 multiscale image: {error!r}") from error
        if names not in (("z", "y", "x"), ("c", "z", "y", "x")):
            raise ConfigurationError(f"axes {', '.join(names)}: they must be z, y, x or c, z, y, x")
        z, y, x = (float(v) * unit for v, unit in zip(scale[-3:], units, strict=True))
        channels = None
        if names[0] == "c":
            entries = ome.get("omero", {}).get("channels", [])
            channels = tuple(str(c.get("label", i)) for i, c in enumerate(entries))
        return cls(
            name=str(image.get("name", "")),
            spacing_angstrom=(z, y, x),
            n_levels=len(image["datasets"]),
            channels=channels,
            downsample=str(image.get("type", "mean")),
            is_labels="image-label" in ome,
        )

    def _dataset(self, level: int) -> dict[str, Any]:
        scale: Sequence[float] = level_scale(self.spacing_angstrom, level)
        translation: Sequence[float] = level_translation(self.spacing_angstrom, level)
        if self.channels is not None:
            scale, translation = (1.0, *scale), (0.0, *translation)
        return {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": list(scale)},
                {"type": "translation", "translation": list(translation)},
            ],
        }

    def _omero_channels(self) -> list[dict[str, Any]]:
        low, start, end, high = self.window or (0.0, 0.0, 1.0, 1.0)
        labels = self.channels or (self.name,)
        colors = self.colors or ("#ffffff",) * len(labels)
        return [
            {
                "label": label,
                "color": color.removeprefix("#").upper(),
                "active": True,
                "window": {"min": low, "start": start, "end": end, "max": high},
            }
            for label, color in zip(labels, colors, strict=True)
        ]

    def _image_label(self) -> dict[str, Any]:
        entries = [
            {"label-value": value, "rgba": list(bytes.fromhex(color[1:].ljust(8, "f")))}
            for value, color in enumerate(self.colors or ())
        ]
        return {"version": VERSION, "colors": entries} if entries else {"version": VERSION}
