"""A phantom small enough for a test of a second."""

from __future__ import annotations

from typing import Any

import numpy as np

from otzi_pipelines.phantom.settings import PhantomSettings, SpecimenSettings, StrokeSettings
from otzi_pipelines.phantom.specimen import Scene, Specimen

__all__ = ["SMALL_SPECIMEN", "scene_of", "small"]

SMALL_SPECIMEN: dict[str, Any] = {
    "virion_radius_angstrom": (100.0, 120.0),
    "stalk_angstrom": 40.0,
    "head_angstrom": 60.0,
    "slab_angstrom": 20.0,
    "rnp_spacing_angstrom": 60.0,
    "membrane_angstrom": 40.0,
    "dust_per_square_micron": 3000.0,
    "junk_per_square_micron": 3000.0,
    "gold_per_square_micron": 600.0,
    "gold_diameter_angstrom": 50.0,
}


def small(specimen: dict[str, Any] | None = None, **more: Any) -> PhantomSettings:
    """Give settings of a small phantom, some of them replaced."""
    values = {"size": (54, 60, 58), "strokes": StrokeSettings(slices=2, per_class=3), **more}
    return PhantomSettings(
        specimen=SpecimenSettings(**{**SMALL_SPECIMEN, **(specimen or {})}), **values
    )


def scene_of(settings: PhantomSettings, seed: int = 0) -> Scene:
    """Give the voxels of a specimen without particles."""
    return Specimen.draw(settings, (), np.random.default_rng(seed)).render(settings)
