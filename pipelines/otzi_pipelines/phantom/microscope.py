"""How a tilt series sees a specimen: missing wedge, contrast transfer, dose, noise.

A tilt series about y with tilt θ measures the central plane of Fourier space that contains the y
axis and is turned by θ. Every frequency (kz, ky, kx) therefore belongs to the one tilt with
tan θ = kz/kx, in whose image it is the frequency (±√(kx² + kz²), ky). What the microscope does to
it, astigmatism and dose included, is a closed form; only the change of defocus across a tilted
or thick specimen is left out. Where |θ| is beyond the largest tilt nothing is measured.

Transforms are of the volume itself, so that the wedge is empty exactly: what is cut at one side of
the field of view rings a few voxels into the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, pi, radians, sqrt, tan
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft

from otzi.memory import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

    from otzi_pipelines.phantom.settings import MicroscopeSettings, PhantomSettings
    from otzi_pipelines.phantom.specimen import Scene

__all__ = [
    "Exposure",
    "Optics",
    "Recording",
    "develop",
    "filtered",
    "record",
    "wavelength_angstrom",
]

_GREYS_PER_SIGMA = 2000.0
_EDGE = 0.6
"""Share of the band over which the low-pass falls from 1 to 0."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What differs from volume to volume."""

    defocus_um: float
    astigmatism_degrees: float
    """Direction of the largest defocus, from x towards y."""
    contrast: float
    """Factor of all grey values."""
    brightness: float
    """Mean grey value, in standard deviations."""
    gradient: tuple[float, float, float]
    """Of y, x and yx, each from −1 to 1 across the field, in standard deviations."""

    @classmethod
    def draw(cls, settings: MicroscopeSettings, rng: Generator) -> Exposure:
        """Give an exposure."""
        shares = rng.uniform(-1, 1, 3)
        shares *= settings.gradient / np.abs(shares).sum()
        return cls(
            defocus_um=float(rng.uniform(*settings.defocus_um)),
            astigmatism_degrees=float(rng.uniform(0, 180)),
            contrast=float(np.exp(settings.contrast_drift * rng.standard_normal())),
            brightness=float(settings.brightness_drift * rng.standard_normal()),
            gradient=(float(shares[0]), float(shares[1]), float(shares[2])),
        )


@dataclass(frozen=True, slots=True)
class Optics:
    """Transfer functions, for planes of constant kz; frequencies are in 1/Å."""

    settings: MicroscopeSettings
    exposure: Exposure
    voxel_angstrom: float

    def passed(self, kz: float, ky: NDArray[Any], kx: NDArray[Any]) -> NDArray[np.float64]:
        """Give what is kept of a frequency: 0 in the missing wedge, and beyond the low-pass."""
        limit = 1 / max(self.settings.low_pass_angstrom, 2 * self.voxel_angstrom)
        k = np.sqrt(kz**2 + ky**2 + kx**2)
        rise = np.clip((limit - k) / (_EDGE * limit), 0, 1)
        is_measured = abs(kz) <= tan(radians(self.settings.tilt_degrees)) * np.abs(kx)
        return np.asarray(is_measured * np.sin(pi / 2 * rise) ** 2)

    def contrast(self, kz: float, ky: NDArray[Any], kx: NDArray[Any]) -> NDArray[np.float64]:
        """Give what the image has of a frequency of the density: negative where protein is dark.

        The exposure filter is that of Grant and Grigorieff (2015, eLife 4:e06980) at 300 kV.
        """
        across = np.sqrt(kx**2 + kz**2)
        k_squared = ky**2 + across**2
        azimuth = np.arctan2(ky, across) - radians(self.exposure.astigmatism_degrees)
        defocus = 1e4 * (
            self.exposure.defocus_um + self.settings.astigmatism_um / 2 * np.cos(2 * azimuth)
        )
        wavelength = wavelength_angstrom(self.settings.voltage_kv)
        aberration = 1e7 * self.settings.spherical_aberration_mm
        phase = pi * wavelength * k_squared * (
            defocus - aberration * wavelength**2 * k_squared / 2
        ) + asin(self.settings.amplitude_contrast)
        share_of_dose = np.arctan2(abs(kz), np.abs(kx)) / radians(self.settings.tilt_degrees)
        dose = self.settings.dose_electrons_per_square_angstrom * share_of_dose
        critical = 0.245 * np.maximum(k_squared, 1e-12) ** (-1.665 / 2) + 2.81
        return np.asarray(-np.sin(phase) * np.exp(-dose / (2 * critical)))

    def seen(self, kz: float, ky: NDArray[Any], kx: NDArray[Any]) -> NDArray[np.float64]:
        """Give what the reconstruction has of a frequency of the density."""
        return self.passed(kz, ky, kx) * self.contrast(kz, ky, kx)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Signal and noise of one volume, in the same arbitrary unit."""

    signal: NDArray[np.float32]
    """``(z, y, x)`` float32, mean 0."""
    noise: NDArray[np.float32]
    """``(z, y, x)`` float32, mean 0."""
    sigma: float
    """Standard deviation of both together, gold left out."""


def wavelength_angstrom(voltage_kv: float) -> float:
    """Give the relativistic wavelength of electrons."""
    volts = 1e3 * voltage_kv
    return 12.2643 / sqrt(volts + 0.97845e-6 * volts**2)


def record(
    scene: Scene, settings: PhantomSettings, exposure: Exposure, rng: Generator
) -> Recording:
    """Give what the microscope sees of a specimen, and noise at the asked ratio.

    The ratio is that of the variances of the signal, without the gold, and of the noise, both
    over the voxels of the virions. Noise goes through the same wedge and low-pass as the signal.
    """
    optics = Optics(settings.microscope, exposure, settings.voxel_size_angstrom)
    voxel = settings.voxel_size_angstrom
    in_virions = scene.labels > 1
    signal = filtered(scene.density, voxel, optics.seen)
    noise = filtered(rng.standard_normal(settings.size, np.float32), voxel, optics.passed)
    ratio = _variance(signal, in_virions) / _variance(noise, in_virions)
    noise *= np.float32(sqrt(ratio / settings.snr))
    sigma = sqrt(_variance(signal) + _variance(noise))
    if scene.gold.any():
        signal += filtered(scene.gold, voxel, optics.seen)
    return Recording(signal, noise, sigma)


def develop(
    recording: Recording, settings: PhantomSettings, exposure: Exposure, z: slice
) -> NDArray[Any]:
    """Give grey values of some planes: ``(z, y, x)`` of the dtype asked for.

    They saturate first; contrast, brightness and the background's gradient come after.
    """
    limit = settings.microscope.saturation
    image: Any = (recording.signal[z] + recording.noise[z]) / np.float32(recording.sigma)
    image = np.clip(image, -limit, limit)
    _, n_y, n_x = settings.size
    y, x = np.linspace(-1, 1, n_y)[:, None], np.linspace(-1, 1, n_x)
    of_y, of_x, of_yx = exposure.gradient
    background = exposure.brightness + of_y * y + of_x * x + of_yx * y * x
    image = _GREYS_PER_SIGMA * exposure.contrast * (image + background.astype(np.float32))
    if settings.dtype == "int16":
        image = np.clip(np.rint(image), -32767, 32767)
    return np.asarray(image, settings.dtype)


def filtered(
    volume: NDArray[np.float32], voxel_angstrom: float, transfer: Callable[..., Any]
) -> NDArray[np.float32]:
    """Give a volume through a transfer function, which takes plane after plane; its mean is 0."""
    workers = usable_cores()
    spectrum = fft.rfftn(volume, workers=workers)
    n_z, n_y, n_x = volume.shape
    ky = fft.fftfreq(n_y, voxel_angstrom)[:, None]
    kx = fft.rfftfreq(n_x, voxel_angstrom)[None, :]
    for z, kz in enumerate(fft.fftfreq(n_z, voxel_angstrom)):
        spectrum[z] *= transfer(float(kz), ky, kx)
    spectrum[0, 0, 0] = 0
    result = fft.irfftn(spectrum, volume.shape, workers=workers, overwrite_x=True)
    return np.asarray(result, np.float32)


def _variance(volume: NDArray[np.float32], mask: NDArray[np.bool_] | None = None) -> float:
    """Give the variance of a volume, or of a part of it, plane by plane: no copy in float64."""
    n, total, squares = 0, 0.0, 0.0
    for z, plane in enumerate(volume):
        values = (plane if mask is None else plane[mask[z]]).astype(np.float64)
        n += values.size
        total += float(values.sum())
        squares += float((values**2).sum())
    return squares / n - (total / n) ** 2
