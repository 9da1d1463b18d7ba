"""A virion: bilayer, spikes on it, ribonucleoproteins (RNPs) in it."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, radians, tan
from typing import TYPE_CHECKING

import numpy as np

from otzi.classes import DEFAULT_CLASSES
from otzi_pipelines.phantom.bodies import Body, blocks_around, occupancy, paint
from otzi_pipelines.phantom.envelope import Envelope
from otzi_pipelines.phantom.scatter import frame_of, keep_apart, random_directions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator
    from numpy.typing import NDArray

    from otzi_pipelines.phantom.settings import SpecimenSettings

__all__ = ["BACKGROUND", "LUMEN", "MEMBRANE", "SPIKES", "Virion"]

BACKGROUND, MEMBRANE, SPIKES, LUMEN = (
    DEFAULT_CLASSES.index(name) + 1 for name in ("background", "membrane", "spikes", "lumen")
)
"""As label volumes have them: class index + 1."""

_LUMEN_DENSITY = 0.15
_LEAFLET_DENSITY, _LEAFLET_SIGMA_ANGSTROM = 0.8, 7.0
_STALK_RADIUS_ANGSTROM = 11.0
_THINNEST_VOXELS = 0.9
"""Radius at which a rod holds a voxel on every plane that it crosses: the truth has no gaps."""
_RNP_RING_ANGSTROM, _RNP_BEAD_ANGSTROM, _RNP_PITCH_ANGSTROM = 45.0, 30.0, 14.0
_RNP_BEADS, _RNP_ARC = 5, 5 / 3 * pi
"""Beads on an open ring, as the letter G."""


@dataclass(frozen=True, slots=True, eq=False)
class Virion:
    """A virion that is drawn but not yet voxels."""

    envelope: Envelope
    membrane_angstrom: float
    spikes: tuple[Body, ...]
    rnps: tuple[Body, ...]

    @classmethod
    def draw(
        cls,
        centre: NDArray[np.float64],
        radius_angstrom: float,
        settings: SpecimenSettings,
        voxel_angstrom: float,
        rng: Generator,
    ) -> Virion:
        """Give a virion at a place; none of its parts is thinner than the voxels."""
        envelope = Envelope.draw(centre, radius_angstrom, settings.irregularity, rng)
        return cls(
            envelope,
            settings.membrane_angstrom,
            tuple(_spikes(envelope, settings, voxel_angstrom, rng)),
            tuple(_rnps(envelope, settings, rng)),
        )

    def paint(
        self, density: NDArray[np.float32], labels: NDArray[np.uint8], voxel_angstrom: float
    ) -> None:
        """Lay the virion into a density and into labels that are background here."""
        shape = (density.shape[0], density.shape[1], density.shape[2])
        half = self.membrane_angstrom / 2
        reach = self.envelope.radius_angstrom * (1 + np.abs(self.envelope.weights).sum()) + half
        centre = self.envelope.centre
        for box in blocks_around(centre - reach, centre + reach, voxel_angstrom, shape):
            distance = self.envelope.distance(box, voxel_angstrom)
            leaflets = _leaflets(distance, half, voxel_angstrom)
            fluid = np.float32(_LUMEN_DENSITY) * occupancy(distance + half, voxel_angstrom)
            paint(density, box, np.maximum(leaflets, fluid))
            target = labels[box.slices]
            target[distance <= half] = MEMBRANE
            target[distance < -half] = LUMEN
        for rnp in self.rnps:
            rnp.paint(density, voxel_angstrom)
        for spike in self.spikes:
            for box in spike.blocks(voxel_angstrom, shape):
                distance = spike.distance(box, voxel_angstrom)
                share = occupancy(distance, voxel_angstrom)
                paint(density, box, np.float32(spike.density) * share)
                target = labels[box.slices]
                target[(distance <= 0) & (target == BACKGROUND)] = SPIKES


def _leaflets(
    distance: NDArray[np.float32], half_angstrom: float, voxel_angstrom: float
) -> NDArray[np.float32]:
    """Give two dark sheets, of Gaussian profile averaged over a voxel, and little between them."""
    blurred = _LEAFLET_SIGMA_ANGSTROM**2 + voxel_angstrom**2 / 12
    peak = _LEAFLET_DENSITY * _LEAFLET_SIGMA_ANGSTROM / blurred**0.5
    middle = np.float32(half_angstrom - _LEAFLET_SIGMA_ANGSTROM)
    departure = (np.abs(distance) - middle) ** 2
    return np.asarray(peak * np.exp(departure * np.float32(-0.5 / blurred)), np.float32)


def _spikes(
    envelope: Envelope, settings: SpecimenSettings, voxel_angstrom: float, rng: Generator
) -> Iterator[Body]:
    spacing = settings.spike_spacing_angstrom
    n_tried = 8 * int(4 * pi * (envelope.radius_angstrom / spacing) ** 2 + 1)
    points, normals = envelope.surface(random_directions(rng, n_tried))
    half = settings.membrane_angstrom / 2
    lobe = 0.22 * settings.head_angstrom
    for i in keep_apart(points, np.full(n_tried, spacing / 2)):
        across = frame_of(normals[i], rng)[0]
        angle = radians(settings.spike_tilt_degrees) * rng.random() ** 0.5
        tilted = frame_of(normals[i] + tan(angle) * across, rng)
        axis = tilted[2]
        foot = points[i] + half * normals[i]
        neck = foot + settings.stalk_angstrom * axis
        bottom, top = neck + lobe * axis, neck + (settings.head_angstrom - lobe) * axis
        turns = 2 * pi / 3 * np.arange(3)
        spread = np.cos(turns)[:, None] * tilted[0] + np.sin(turns)[:, None] * tilted[1]
        stalk = max(_STALK_RADIUS_ANGSTROM, _THINNEST_VOXELS * voxel_angstrom)
        yield Body(
            np.vstack([foot - half * normals[i], bottom + 0.5 * lobe * spread]),
            np.vstack([bottom, top + lobe * spread]),
            np.array([stalk, lobe, lobe, lobe]),
            density=1.0,
        )


def _rnps(envelope: Envelope, settings: SpecimenSettings, rng: Generator) -> Iterator[Body]:
    spacing, radius = settings.rnp_spacing_angstrom, envelope.radius_angstrom
    clearance = settings.membrane_angstrom / 2 + _RNP_RING_ANGSTROM + _RNP_BEAD_ANGSTROM
    n_tried = 20 * int((2 * radius / spacing) ** 3 + 1)
    lengths = radius * rng.random(n_tried) ** (1 / 3)
    points = envelope.centre + lengths[:, None] * random_directions(rng, n_tried)
    points = points[envelope.distance_at(points) < -clearance]
    turns = np.linspace(0, _RNP_ARC, _RNP_BEADS)
    heights = _RNP_PITCH_ANGSTROM * (np.arange(_RNP_BEADS) - (_RNP_BEADS - 1) / 2)
    ring = np.stack(
        [_RNP_RING_ANGSTROM * np.cos(turns), _RNP_RING_ANGSTROM * np.sin(turns), heights], axis=1
    )
    for i in keep_apart(points, np.full(len(points), spacing / 2)):
        beads = points[i] + ring @ frame_of(random_directions(rng, 1)[0], rng)
        radii = np.full(_RNP_BEADS, _RNP_BEAD_ANGSTROM)
        yield Body.spheres(beads, radii, density=0.9)
