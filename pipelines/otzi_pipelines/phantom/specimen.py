"""A specimen in ice: drawn by a generator, then voxels of density and of truth."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi_pipelines.phantom.clutter import Spheres, draw_interfaces, dust, gold, junk
from otzi_pipelines.phantom.particles import Particle
from otzi_pipelines.phantom.scatter import keep_apart
from otzi_pipelines.phantom.virion import BACKGROUND, Virion

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from otzi_pipelines.phantom.bodies import Body
    from otzi_pipelines.phantom.clutter import Interface
    from otzi_pipelines.phantom.particles import Template
    from otzi_pipelines.phantom.settings import PhantomSettings

__all__ = ["Scene", "Specimen"]

_TRIES, _FEW_TRIES = 200, 20


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A specimen as voxels."""

    density: NDArray[np.float32]
    """``(z, y, x)`` float32 above that of ice, protein about 1; without the gold."""
    gold: NDArray[np.float32]
    """``(z, y, x)`` float32: the gold alone."""
    labels: NDArray[np.uint8]
    """``(z, y, x)`` uint8: class index + 1, never 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """All that is in the ice."""

    virions: tuple[Virion, ...]
    interfaces: tuple[Interface, ...]
    lumps: tuple[Body, ...]
    """Dust, and junk at the interfaces."""
    beads: tuple[Body, ...]
    particles: tuple[Particle, ...]

    @classmethod
    def draw(
        cls, settings: PhantomSettings, templates: tuple[Template, ...], rng: Generator
    ) -> Specimen:
        """Give a specimen; `templates` are those of ``settings.specimen.particles``.

        No virion meets another or reaches into the slabs, and nothing else reaches into a virion.
        Where there is no room, there are fewer things than were asked for.
        The first is whole, the others may be cut by the sides of the field of view.
        """
        centres, radii = _virion_places(settings, rng)
        virions = tuple(
            Virion.draw(centre, radius, settings.specimen, settings.voxel_size_angstrom, rng)
            for centre, radius in zip(centres, radii, strict=True)
        )
        taken = centres, np.array([settings.specimen.reach_angstrom(r) for r in radii])
        interfaces = draw_interfaces(settings, rng)
        lumps = (*dust(settings, taken, rng), *junk(settings, interfaces, taken, rng))
        beads = tuple(gold(settings, interfaces, taken, rng))
        return cls(virions, interfaces, lumps, beads, _particles(settings, templates, taken, rng))

    def render(self, settings: PhantomSettings) -> Scene:
        """Give the voxels; each thing is computed within its own box only."""
        voxel, depth = settings.voxel_size_angstrom, settings.size[0]
        scene = Scene(
            np.zeros(settings.size, np.float32),
            np.zeros(settings.size, np.float32),
            np.full(settings.size, BACKGROUND, np.uint8),
        )
        slab_planes = ceil(settings.specimen.slab_angstrom / voxel)
        for interface in self.interfaces:
            planes = range(slab_planes) if interface.is_top else range(depth - slab_planes, depth)
            interface.paint(scene.density, planes, voxel)
        for lump in self.lumps:
            lump.paint(scene.density, voxel)
        for particle in self.particles:
            particle.paint(scene.density, voxel)
        for bead in self.beads:
            bead.paint(scene.gold, voxel)
        for virion in self.virions:
            virion.paint(scene.density, scene.labels, voxel)
        return scene

    def to_json(self, voxel_angstrom: float) -> dict[str, Any]:
        """Give what there is, as plain JSON."""
        return {
            "virions": [
                {
                    "centre_voxels": [round(v / voxel_angstrom, 2) for v in one.envelope.centre],
                    "radius_angstrom": round(one.envelope.radius_angstrom, 2),
                    "spikes": len(one.spikes),
                    "rnps": len(one.rnps),
                }
                for one in self.virions
            ],
            "lumps": len(self.lumps),
            "gold": len(self.beads),
            "particles": len(self.particles),
        }


def _virion_places(settings: PhantomSettings, rng: Generator) -> Spheres:
    """Give centres and radii of the virions."""
    specimen = settings.specimen
    extent = (np.array(settings.size) - 1) * settings.voxel_size_angstrom
    slab = np.array([specimen.slab_angstrom, 0, 0])
    low, high = specimen.virion_radius_angstrom
    room = float((extent / 2 - slab).min()) - specimen.spike_angstrom
    high = min(high, room / (1 + specimen.irregularity))
    n = max(1, settings.number(specimen.virions_per_square_micron))
    radii = rng.uniform(low, high, n * _TRIES)
    reaches = specimen.reach_angstrom(0) + radii * (1 + specimen.irregularity)
    margins = np.zeros((n * _TRIES, 3))
    margins[:, 0] = reaches
    margins[0] = reaches[0]
    margins += slab
    centres = margins + rng.random((n * _TRIES, 3)) * (extent - 2 * margins)
    kept = keep_apart(centres, reaches, most=n)
    return centres[kept], radii[kept]


def _particles(
    settings: PhantomSettings, templates: tuple[Template, ...], virions: Spheres, rng: Generator
) -> tuple[Particle, ...]:
    found = []
    centres, reaches = virions
    extent = (np.array(settings.size) - 1) * settings.voxel_size_angstrom
    slab = np.array([settings.specimen.slab_angstrom, 0, 0])
    for kind, template in zip(settings.specimen.particles, templates, strict=True):
        n = settings.number(kind.per_square_micron)
        tried = slab + rng.random((n * _FEW_TRIES, 3)) * (extent - 2 * slab)
        radii = np.full(len(tried), template.reach_angstrom)
        kept = keep_apart(tried, radii, most=n, others=(centres, reaches))
        found += [Particle.draw(template, centre, rng) for centre in tried[kept]]
        centres = np.vstack([centres, tried[kept]])
        reaches = np.append(reaches, radii[kept])
    return tuple(found)
