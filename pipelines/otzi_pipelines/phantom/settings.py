"""The settings of phantoms: what is in the ice, and how it is recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf, isfinite
from typing import Any

from otzi.errors import ConfigurationError, checked_name
from otzi.settings import STRICT

__all__ = [
    "MicroscopeSettings",
    "ParticleSettings",
    "PhantomSettings",
    "SpecimenSettings",
    "StrokeSettings",
]


@dataclass(frozen=True, slots=True)
class ParticleSettings:
    """Copies of a density, as those of the EMDB; background to the truth."""

    __pydantic_config__ = STRICT

    file: str
    """An MRC file, protein positive; a relative path begins at the current folder."""
    per_square_micron: float = 1000.0

    def __post_init__(self) -> None:
        _check(self, "per_square_micron", low=0)


@dataclass(frozen=True, slots=True)
class SpecimenSettings:
    """What is in the ice; numbers of things are per area of the field of view."""

    __pydantic_config__ = STRICT

    virions_per_square_micron: float = 60.0
    """At least one whole virion is in every volume."""
    virion_radius_angstrom: tuple[float, float] = (280.0, 450.0)
    """Smallest and largest, to the middle of the membrane; fewer where the ice is too thin."""
    irregularity: float = 0.1
    """Largest departure from a sphere, as a share of the radius."""
    membrane_angstrom: float = 50.0
    """Thickness of the bilayer, head groups included."""
    spike_spacing_angstrom: float = 100.0
    """Least distance of two spikes on the membrane."""
    spike_tilt_degrees: float = 30.0
    """Largest angle of a spike with the normal of the membrane."""
    stalk_angstrom: float = 80.0
    """Length of what holds the head of a spike."""
    head_angstrom: float = 110.0
    """Length of the head of a spike."""
    rnp_spacing_angstrom: float = 135.0
    """Least distance of two ribonucleoproteins in the lumen."""

    dust_per_square_micron: float = 500.0
    junk_per_square_micron: float = 700.0
    """Denser lumps at the air–water interfaces."""
    gold_per_square_micron: float = 45.0
    gold_diameter_angstrom: float = 100.0
    slab_angstrom: float = 60.0
    """At top and bottom: where air, interface and its film are, and no virion is."""
    particles: tuple[ParticleSettings, ...] = ()

    def __post_init__(self) -> None:
        lengths = ("membrane_angstrom", "stalk_angstrom", "head_angstrom", "gold_diameter_angstrom")
        spacings = ("spike_spacing_angstrom", "rnp_spacing_angstrom")
        _check(self, *lengths, *spacings, low=1)
        kinds = ("virions", "dust", "junk", "gold")
        _check(self, "slab_angstrom", *(f"{kind}_per_square_micron" for kind in kinds), low=0)
        _check(self, "spike_tilt_degrees", low=0, high=45)
        _check(self, "irregularity", low=0, high=0.2)
        low, high = self.virion_radius_angstrom
        if not 2 * self.membrane_angstrom <= low <= high < inf:
            raise ConfigurationError(
                f"virion_radius_angstrom = [{low:g}, {high:g}] must ascend from at least twice "
                f"membrane_angstrom, {2 * self.membrane_angstrom:g}"
            )

    @property
    def spike_angstrom(self) -> float:
        """How far spikes stand out from the middle of the membrane."""
        return self.membrane_angstrom / 2 + self.stalk_angstrom + self.head_angstrom

    def reach_angstrom(self, radius_angstrom: float) -> float:
        """Give how far a virion of this radius reaches from its centre at most."""
        return radius_angstrom * (1 + self.irregularity) + self.spike_angstrom


@dataclass(frozen=True, slots=True)
class MicroscopeSettings:
    """How the specimen is recorded, reconstructed and scaled."""

    __pydantic_config__ = STRICT

    tilt_degrees: float = 60.0
    """The tilts about y are from minus this to plus this."""
    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.07
    defocus_um: tuple[float, float] = (3.0, 6.0)
    """Of each volume, between these; underfocus is positive."""
    astigmatism_um: float = 0.0
    """Difference of the largest and the smallest defocus."""
    dose_electrons_per_square_angstrom: float = 120.0
    """Of the whole series, which begins at tilt 0 and takes the largest tilts last."""
    low_pass_angstrom: float = 25.0
    """Nothing finer is in signal and noise; never finer than two voxels."""

    contrast_drift: float = 0.2
    """Standard deviation, between volumes, of the logarithm of the contrast."""
    brightness_drift: float = 0.3
    """Standard deviation, between volumes, of the mean, in standard deviations of the volume."""
    gradient: float = 0.3
    """Largest departure of the background from its mean, in the same unit."""
    saturation: float = 12.0
    """Where grey values are clipped, in the same unit."""

    def __post_init__(self) -> None:
        _check(self, "tilt_degrees", low=1, high=90)
        _check(self, "voltage_kv", low=1)
        _check(self, "saturation", low=1, high=16)
        _check(self, "amplitude_contrast", low=0, high=1)
        optics = ("spherical_aberration_mm", "astigmatism_um", "low_pass_angstrom")
        _check(self, *optics, "dose_electrons_per_square_angstrom", "gradient", low=0)
        _check(self, "contrast_drift", "brightness_drift", low=0, high=2)
        low, high = self.defocus_um
        if not 0 <= low <= high < inf:
            raise ConfigurationError(
                f"defocus_um = [{low:g}, {high:g}] must ascend from at least 0"
            )


@dataclass(frozen=True, slots=True)
class StrokeSettings:
    """How many strokes are drawn from the truth."""

    __pydantic_config__ = STRICT

    slices: int = 3
    """On which strokes are drawn."""
    per_class: int = 5
    """Strokes of each class on a slice."""
    points: int = 10
    """Corners of a stroke at most."""
    radius_voxels: float = 1.5
    """Less where a class is thinner."""

    def __post_init__(self) -> None:
        _check(self, "slices", "per_class", low=0)
        _check(self, "points", low=1)
        _check(self, "radius_voxels", low=0, high=8)


@dataclass(frozen=True, slots=True)
class PhantomSettings:
    """What decides the voxels of all phantoms; the keys of ``--config``.

    Raises
    ------
    ConfigurationError
        If a number is out of range, or no virion fits into the volume.
    """

    __pydantic_config__ = STRICT

    name: str = "phantom"
    """What ids begin with."""
    size: tuple[int, int, int] = (128, 256, 256)
    """Voxels in z, y, x."""
    voxel_size_angstrom: float = 10.0
    snr: float = 0.5
    """Variance of the signal in the virions, over that of the noise."""
    seed: int = 0
    dtype: str = "int16"
    """Of the grey values: int16 or float32."""
    specimen: SpecimenSettings = field(default_factory=SpecimenSettings)
    microscope: MicroscopeSettings = field(default_factory=MicroscopeSettings)
    strokes: StrokeSettings = field(default_factory=StrokeSettings)

    def __post_init__(self) -> None:
        checked_name(self.name, "name")
        if self.dtype not in ("int16", "float32"):
            raise ConfigurationError(f"dtype = {self.dtype!r} must be int16 or float32")
        _check(self, "seed", low=0)
        for key in ("voxel_size_angstrom", "snr"):
            if not 0 < getattr(self, key) < inf:
                raise ConfigurationError(f"{key} = {getattr(self, key):g} must be above 0")
        finest = self.specimen.membrane_angstrom / 2
        if self.voxel_size_angstrom > finest:
            raise ConfigurationError(
                f"voxel_size_angstrom = {self.voxel_size_angstrom:g} must be at most {finest:g}, "
                "half of membrane_angstrom: the truth would have holes"
            )
        reach = self.specimen.reach_angstrom(self.specimen.virion_radius_angstrom[0])
        slab = self.specimen.slab_angstrom
        for axis, n, margin in zip("zyx", self.size, (slab, 0, 0), strict=True):
            needed = ceil(2 * (reach + margin) / self.voxel_size_angstrom) + 1
            if n < needed:
                raise ConfigurationError(
                    f"size = {list(self.size)} is too small for a virion: {axis} needs {needed} "
                    f"voxels of {self.voxel_size_angstrom:g} Å; give more, or a smaller "
                    "virion_radius_angstrom"
                )

    @property
    def depth_angstrom(self) -> float:
        """From the first plane to the last."""
        return (self.size[0] - 1) * self.voxel_size_angstrom

    def number(self, per_square_micron: float) -> int:
        """Give how many things there are in the field of view."""
        _, n_y, n_x = self.size
        return round(per_square_micron * n_y * n_x * (self.voxel_size_angstrom / 1e4) ** 2)


def _check(settings: Any, *keys: str, low: float, high: float = inf) -> None:
    for key in keys:
        value = getattr(settings, key)
        if not (isfinite(value) and low <= value <= high):
            limits = f"at least {low:g}" if high == inf else f"{low:g} to {high:g}"
            raise ConfigurationError(f"{key} = {value:g} must be {limits}")
