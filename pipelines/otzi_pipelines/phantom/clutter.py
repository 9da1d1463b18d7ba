"""What is in the ice and is no virion: dust, gold, and the films where ice meets air."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from otzi_pipelines.phantom.bodies import Body, occupancy
from otzi_pipelines.phantom.scatter import keep_apart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator
    from numpy.typing import NDArray

    from otzi_pipelines.phantom.settings import PhantomSettings

__all__ = ["Interface", "Spheres", "draw_interfaces", "dust", "gold", "junk"]

Spheres = tuple["NDArray[np.float64]", "NDArray[np.float64]"]
"""Centres ``(n, 3)`` and radii ``(n,)``, in ångström."""

_AIR_DENSITY = -0.5
_FILM_DENSITY, _FILM_SIGMA_ANGSTROM = 0.6, 10.0
_GOLD_DENSITY = 25.0
_WAVE_ANGSTROM, _PATCH_ANGSTROM = 400.0, 60.0
_MOST_LUMPS = 7
_TRIES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Interface:
    """Where ice meets air, and the patchy film of denatured protein there."""

    is_top: bool
    height: NDArray[np.float32]
    """``(y, x)`` float32: its z in ångström."""
    film: NDArray[np.float32]
    """``(y, x)`` float32: density of the film."""

    def at(self, y: float, x: float, voxel_angstrom: float) -> float:
        """Give its z at a place in ångström."""
        return float(self.height[int(y / voxel_angstrom), int(x / voxel_angstrom)])

    def paint(self, density: NDArray[np.float32], planes: range, voxel_angstrom: float) -> None:
        """Lay air and film into planes of a density that is 0 there, one plane at a time."""
        for z in planes:
            outward = self.height - np.float32(z * voxel_angstrom)
            if not self.is_top:
                outward = -outward
            air = np.float32(_AIR_DENSITY) * occupancy(-outward, voxel_angstrom)
            spread = np.float32(-0.5 / (_FILM_SIGMA_ANGSTROM**2 + voxel_angstrom**2 / 12))
            density[z] = air + self.film * np.exp(outward**2 * spread)


def draw_interfaces(settings: PhantomSettings, rng: Generator) -> tuple[Interface, ...]:
    """Give top and bottom, both within their slabs."""
    slab, depth = settings.specimen.slab_angstrom, settings.depth_angstrom
    drawn = []
    for is_top in (True, False):
        from_edge = slab * (0.5 + 0.3 * _smooth(settings, _WAVE_ANGSTROM, rng))
        patches = np.clip(_smooth(settings, _PATCH_ANGSTROM, rng), 0, 1)
        height = from_edge if is_top else depth - from_edge
        film = np.float32(_FILM_DENSITY) * patches
        drawn.append(Interface(is_top, height.astype(np.float32), film.astype(np.float32)))
    return tuple(drawn)


def dust(settings: PhantomSettings, virions: Spheres, rng: Generator) -> Iterator[Body]:
    """Yield lumps of a few spheres, anywhere in the ice beside the virions."""
    n = settings.number(settings.specimen.dust_per_square_micron)
    margin, depth = settings.specimen.slab_angstrom, settings.depth_angstrom
    heights = rng.uniform(margin, depth - margin, n * _TRIES)
    centres = np.column_stack([heights, _field(settings, n * _TRIES, rng)])
    sizes = rng.uniform(20, 60, n * _TRIES)
    for i in keep_apart(centres, 2 * sizes, most=n, others=virions):
        yield _lump(centres[i], sizes[i], rng.uniform(0.5, 1.2), rng)


def junk(
    settings: PhantomSettings, interfaces: tuple[Interface, ...], virions: Spheres, rng: Generator
) -> Iterator[Body]:
    """Yield denser lumps just below the interfaces."""
    n = settings.number(settings.specimen.junk_per_square_micron)
    centres = _at_interfaces(settings, n * _TRIES, interfaces, rng, (0, 50))
    sizes = rng.uniform(20, 80, n * _TRIES)
    for i in keep_apart(centres, 2 * sizes, most=n, others=virions):
        yield _lump(centres[i], sizes[i], rng.uniform(0.8, 2.0), rng)


def gold(
    settings: PhantomSettings, interfaces: tuple[Interface, ...], virions: Spheres, rng: Generator
) -> Iterator[Body]:
    """Yield beads just below the interfaces."""
    n = settings.number(settings.specimen.gold_per_square_micron)
    radius = settings.specimen.gold_diameter_angstrom / 2
    centres = _at_interfaces(settings, n * _TRIES, interfaces, rng, (radius, radius))
    radii = radius * rng.uniform(0.9, 1.1, n * _TRIES)
    for i in keep_apart(centres, radii, most=n, others=virions):
        yield Body.spheres(centres[i : i + 1], radii[i : i + 1], _GOLD_DENSITY)


def _lump(centre: NDArray[np.float64], size: float, density: float, rng: Generator) -> Body:
    """Give a few spheres, none of which reaches farther from the centre than twice the size."""
    n = int(rng.integers(2, _MOST_LUMPS + 1))
    centres = centre + size * rng.uniform(-0.75, 0.75, (n, 3))
    return Body.spheres(centres, size * rng.uniform(0.3, 0.7, n), density)


def _at_interfaces(
    settings: PhantomSettings,
    n: int,
    interfaces: tuple[Interface, ...],
    rng: Generator,
    below_angstrom: tuple[float, float],
) -> NDArray[np.float64]:
    field = _field(settings, n, rng)
    chosen = rng.integers(len(interfaces), size=n)
    below = rng.uniform(*below_angstrom, n)
    heights = np.empty(n)
    for i, (y, x) in enumerate(field):
        interface = interfaces[chosen[i]]
        inward = below[i] if interface.is_top else -below[i]
        heights[i] = interface.at(y, x, settings.voxel_size_angstrom) + inward
    return np.column_stack([heights, field])


def _field(settings: PhantomSettings, n: int, rng: Generator) -> NDArray[np.float64]:
    """Give places y, x in the field of view: ``(n, 2)``."""
    _, n_y, n_x = settings.size
    extent = (np.array([n_y, n_x]) - 1) * settings.voxel_size_angstrom
    return rng.random((n, 2)) * extent


def _smooth(settings: PhantomSettings, wave_angstrom: float, rng: Generator) -> NDArray[np.float64]:
    """Give a random field that varies over such lengths, between −1 and 1: ``(y, x)``."""
    white = rng.standard_normal(settings.size[1:])
    sigma = wave_angstrom / settings.voxel_size_angstrom
    field = ndimage.gaussian_filter(white, sigma, mode="wrap")
    return np.asarray(np.tanh(field / (field.std() or 1)))
