"""Random places and directions, all from a generator that is given.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

__all__ = ["frame_of", "keep_apart", "random_directions"]


def random_directions(rng: Generator, n: int) -> NDArray[np.float64]:
    """Give unit vectors, uniform on the sphere: ``(n, 3)``."""
    vectors = rng.standard_normal((n, 3))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def frame_of(axis: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Give three orthogonal unit vectors, ``(3, 3)``: the last along `axis`, turned at random."""
    axis = axis / np.linalg.norm(axis)
    across = np.cross(axis, random_directions(rng, 1)[0])
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(axis, across), axis])


def keep_apart(
    centres: NDArray[np.float64],
    radii: NDArray[np.float64],
    *,
    most: int | None = None,
    others: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> NDArray[np.intp]:
    """Give the indices of spheres none of which meets another, taken in their order.

    Parameters
    ----------
    centres, radii
        ``(n, 3)`` and ``(n,)``, in one unit of length.
    most
        How many are taken at most.
    others
        Centres and radii of spheres that are there already, which none may meet either.
    """
    placed, reaches = others or (np.empty((0, 3)), np.empty(0))
    taken: list[int] = []
    for i, (centre, radius) in enumerate(zip(centres, radii, strict=True)):
        if len(taken) == most:
            break
        squared = ((placed - centre) ** 2).sum(axis=1)
        if (squared >= (reaches + radius) ** 2).all():
            taken.append(i)
            placed, reaches = np.vstack([placed, centre]), np.append(reaches, radius)
    return np.array(taken, np.intp)
