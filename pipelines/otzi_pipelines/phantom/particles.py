"""Densities of the user, as those of the EMDB, turned at random and laid into the ice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from otzi.box import Box
from otzi.errors import NotFoundError, UnsupportedMRC
from otzi.mrc import read_header, read_window
from otzi.mrc_volume import check_tomogram
from otzi_pipelines.phantom.bodies import blocks_around, paint

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

__all__ = ["Particle", "Template", "read_template"]

_CONTOUR_SIGMAS = 2.0
_DENSITY = 0.9
_MOST_VOXELS = 512**3


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """The density of one kind of particle."""

    density: NDArray[np.float32]
    """``(z, y, x)`` float32: 0 outside the contour, about that of protein inside."""
    spacing_angstrom: tuple[float, float, float]

    @property
    def middle(self) -> NDArray[np.float64]:
        """The voxel about which it is turned: ``(3,)``."""
        return (np.array(self.density.shape) - 1) / 2

    @property
    def reach_angstrom(self) -> float:
        """How far what is not 0 reaches from the middle, interpolation included."""
        places = (np.argwhere(self.density) - self.middle) * self.spacing_angstrom
        farthest = np.linalg.norm(places, axis=1).max()
        return float(farthest + np.linalg.norm(self.spacing_angstrom))


@dataclass(frozen=True, slots=True, eq=False)
class Particle:
    """One copy of a template."""

    template: Template
    centre: NDArray[np.float64]
    """``(3,)`` z, y, x in ångström."""
    rotation: NDArray[np.float64]
    """``(3, 3)``: from the template to the specimen."""

    @classmethod
    def draw(cls, template: Template, centre: NDArray[np.float64], rng: Generator) -> Particle:
        """Give a copy turned at random, uniform over all rotations."""
        rotation = Rotation.from_quat(rng.standard_normal(4)).as_matrix()
        return cls(template, centre, np.asarray(rotation))

    def paint(self, volume: NDArray[np.float32], voxel_angstrom: float) -> None:
        """Lay the particle into a density, trilinearly interpolated."""
        shape = (volume.shape[0], volume.shape[1], volume.shape[2])
        template, reach = self.template, self.template.reach_angstrom
        into = self.rotation.T / np.array(template.spacing_angstrom)[:, None]
        low, high = self.centre - reach, self.centre + reach
        for box in blocks_around(low, high, voxel_angstrom, shape):
            first = np.array(box.start) * voxel_angstrom - self.centre
            values = ndimage.affine_transform(
                template.density,
                into * voxel_angstrom,
                offset=into @ first + template.middle,
                output_shape=box.shape,
                order=1,
            )
            paint(volume, box, values)


def read_template(path: str | Path, voxel_angstrom: float) -> Template:
    """Give the density of a file, low-passed for voxels of the size it is wanted in.

    What is below the mean plus two standard deviations is taken for solvent, what is above the
    mean of the rest for whole protein.

    Raises
    ------
    NotFoundError, AccessDenied, TemporaryFailure
        If it cannot be read.
    NotAnMRC, TruncatedMRC, UnsupportedMRC
        If it is no density.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"particle {path} is not there")
    header = read_header(path)
    check_tomogram(header, str(path), as_volume=True)
    if np.prod(header.shape) > _MOST_VOXELS:
        raise UnsupportedMRC(f"{path} has {header.shape} voxels: crop it, a particle has 512³")
    values = read_window(path, header, Box.whole(header.shape)).astype(np.float32)
    if not np.isfinite(values).all():
        raise UnsupportedMRC(f"{path} has voxels that are no numbers: it is no particle")
    z, y, x = header.spacing_angstrom
    if z is None or y is None or x is None:
        raise UnsupportedMRC(f"{path} does not say its voxel size: write it into the header")
    spacing = np.array([z, y, x])
    blurs = np.where(voxel_angstrom > spacing, 0.5 * voxel_angstrom / spacing, 0)
    values = ndimage.gaussian_filter(values, blurs, mode="nearest")
    contour = float(values.mean() + _CONTOUR_SIGMAS * values.std())
    inside = values[values > contour]
    if not inside.size:
        raise UnsupportedMRC(f"{path} has nothing that stands out: it is no particle")
    full = float(inside.mean())
    density = _DENSITY * np.clip((values - contour) / (full - contour), 0, 1)
    return Template(density.astype(np.float32), (z, y, x))
