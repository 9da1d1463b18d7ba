"""Surface area from how often an object ends along lines of many directions.  Pure.

By Crofton's formula the area of a surface is twice its projection, averaged over all directions.
Lines through neighbouring voxels have 13 directions; each stands for those nearest to it, its
Voronoi cell on the sphere. The faces of voxels, a staircase, would be half again as large as the
surface of a ball. Source: Ohser and Mücklich, "Statistical Analysis of Microstructures in Materials
Science" (2000).
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi_pipelines.objects.parts import DIRECTIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.ome import Spacing

__all__ = ["crossing_areas", "surface_areas"]


def crossing_areas(spacing: Spacing) -> NDArray[np.float64]:
    """Give the surface that one crossing stands for: ``(7,)``, by direction.

    Parameters
    ----------
    spacing
        Of the voxels, z, y, x; areas are in its unit, squared.
    """
    from scipy.spatial import SphericalVoronoi

    steps = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])
    lengths = np.linalg.norm(steps * spacing, axis=1)
    cells = SphericalVoronoi(steps * spacing / lengths[:, None])
    cells.sort_vertices_of_regions()
    shares = cells.calculate_areas() / (4 * np.pi)
    kinds = [DIRECTIONS.index((abs(int(z)), abs(int(y)), abs(int(x)))) for z, y, x in steps]
    share = np.bincount(kinds, shares)  # of all directions that differ in their signs only
    length = np.array([np.linalg.norm(np.multiply(step, spacing)) for step in DIRECTIONS])
    n_lines = np.bincount(kinds) / 2
    # On a line of this direction the voxels stand for a cross-section of volume / length.
    return np.asarray(2 * share / n_lines * prod(spacing) / length)


def surface_areas(crossings: NDArray[np.integer[Any]], spacing: Spacing) -> NDArray[np.float64]:
    """Give the surface areas of objects: ``(n,)``, in the unit of `spacing`, squared.

    Where an object is cut by the end of the volume there is no surface.

    Parameters
    ----------
    crossings
        ``(n, 7)``: see `otzi_pipelines.objects.parts.Parts`.
    spacing
        Of the voxels, z, y, x.
    """
    return np.asarray(crossings @ crossing_areas(spacing))
