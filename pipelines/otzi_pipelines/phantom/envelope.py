"""The closed surface in the middle of a virion's membrane.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi_pipelines.phantom.bodies import offsets_from
from otzi_pipelines.phantom.scatter import random_directions

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from otzi.box import Box

__all__ = ["Envelope"]

_N_POLES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """A sphere with dents and bulges: r(u) = R (1 + Σ wₖ Pₖ(u · nₖ)).

    Pₖ is the Legendre polynomial of degree 2 for the first half of the poles nₖ, and of degree 3
    for the others.
    """

    centre: NDArray[np.float64]
    """``(3,)`` z, y, x in ångström."""
    radius_angstrom: float
    poles: NDArray[np.float64]
    """``(k, 3)`` unit vectors."""
    weights: NDArray[np.float64]
    """``(k,)``."""

    @classmethod
    def draw(
        cls, centre: NDArray[np.float64], radius: float, irregularity: float, rng: Generator
    ) -> Envelope:
        """Give a surface that departs from the sphere by at most `irregularity` times R."""
        weights = rng.uniform(-1, 1, _N_POLES)
        weights *= irregularity / np.abs(weights).sum()
        return cls(centre, radius, random_directions(rng, _N_POLES), weights)

    def distance(self, box: Box, voxel_angstrom: float) -> NDArray[np.float32]:
        """Give the radial distance of voxels, negative inside: ``(z, y, x)`` float32 ångström.

        It differs from the distance to the nearest point of the surface in the second order of
        the irregularity.
        """
        return self._radial(offsets_from(self.centre, box, voxel_angstrom))

    def distance_at(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """Give the same at points, ``(n, 3)``: ``(n,)`` float32."""
        return self._radial(tuple((points - self.centre).T.astype(np.float32)))

    def surface(
        self, directions: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the points of the surface in these directions, and its normals: ``(n, 3)`` each."""
        cosines = directions @ self.poles.T
        values, slopes = _legendre(cosines)
        radii = self.radius_angstrom * (1 + values @ self.weights)
        # The gradient on the sphere: nₖ less its part along u.
        gradient = (slopes * self.weights) @ self.poles
        gradient -= (slopes * self.weights * cosines).sum(axis=1)[:, None] * directions
        normals = directions - gradient * (self.radius_angstrom / radii)[:, None]
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return self.centre + radii[:, None] * directions, normals

    def _radial(self, offsets: tuple[NDArray[np.float32], ...]) -> NDArray[np.float32]:
        length: Any = np.sqrt(sum(o * o for o in offsets))
        inverse = 1 / np.maximum(length, np.float32(1e-3))
        bulge = np.zeros_like(length)
        for k, (pole, weight) in enumerate(zip(self.poles, self.weights, strict=True)):
            dot: Any = sum(o * np.float32(n) for o, n in zip(offsets, pole, strict=True))
            cosine = dot * inverse
            square = cosine * cosine
            is_quadratic = k < len(self.poles) // 2
            value = (3 * square - 1) / 2 if is_quadratic else cosine * (5 * square - 3) / 2
            bulge += np.float32(weight) * value
        return np.asarray(length - np.float32(self.radius_angstrom) * (1 + bulge), np.float32)


def _legendre(cosines: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give P(c) and P'(c) of ``(n, k)`` cosines with the poles."""
    half = cosines.shape[1] // 2
    two, three = cosines[:, :half], cosines[:, half:]
    values = np.hstack([(3 * two**2 - 1) / 2, (5 * three**3 - 3 * three) / 2])
    return values, np.hstack([3 * two, (15 * three**2 - 3) / 2])
