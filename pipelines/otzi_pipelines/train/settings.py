"""The settings of a training: what decides the result, together with the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from otzi.errors import ConfigurationError
from otzi.settings import STRICT

__all__ = ["AugmentationSettings", "LossName", "Schedule", "TrainSettings"]

LossName = Literal["cross-entropy", "bce", "mse", "adaptive-wing"]
Schedule = Literal["cosine", "plateau", "constant"]

_NETWORK_KEYS = ("width", "levels", "kernel")


@dataclass(frozen=True, slots=True)
class AugmentationSettings:
    """How crops are changed beside flips and quarter turns; nothing where 0. Density has unit sd.

    Raises
    ------
    ConfigurationError
        If a number is out of range.
    """

    __pydantic_config__ = STRICT

    gain: float = 0.0
    """Standard deviation of the logarithm of a factor of the contrast."""
    offset: float = 0.0
    """Standard deviation of what is added to all voxels, in those of the volume."""
    noise: float = 0.0
    """Largest standard deviation of white noise that is added, in those of the volume."""
    blur_voxels: float = 0.0
    """Largest standard deviation of a Gaussian blur."""
    rotation_degrees: float = 0.0
    """Largest angle of a rotation about z: the beam axis stays, and with it, nearly, the missing
    wedge; about any other axis it would point where no microscope leaves it."""

    def __post_init__(self) -> None:
        limits = {"gain": 2, "offset": 10, "noise": 10, "blur_voxels": 8, "rotation_degrees": 45}
        for key, limit in limits.items():
            if not 0 <= getattr(self, key) <= limit:
                raise ConfigurationError(
                    f"augmentation.{key} = {getattr(self, key)} must be 0 to {limit}"
                )


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What decides the result, together with the data; the keys of ``--config``.

    Raises
    ------
    ConfigurationError
        If a number is out of range, or two settings contradict each other.
    """

    __pydantic_config__ = STRICT

    steps: int = 20_000
    """Batches to learn from."""
    seed: int = 0
    """Of the first weights, of all crops, and of what is changed in them."""

    batch: int = 4
    """Crops of a step, over all processes together."""
    accumulate: int = 1
    """Parts in which each process computes its crops one after another: less memory, and the same
    gradient, but for batch norms, whose statistics are those of a part."""
    crop_voxels: int = 128
    grid_voxels: int = 32
    """Crops begin at multiples of this, as chunks of the store do."""
    balance: float = 0.5
    """Share of crops that are drawn around a place of a certain class, each class alike."""
    turns: bool = True
    """Flip crops, and turn them about z by quarters."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    held_out: float = 0.2
    """The end of each tomogram, along its longest axis, that is only for validation; of no meaning
    where ``otzi split`` has set tomograms aside for it."""
    validation_crops: int = 16

    loss: LossName = "cross-entropy"
    targets: Literal["soft", "hard"] = "soft"
    """Labels as they are stored, or only the most probable class of each voxel."""
    class_weights: tuple[float, ...] = ()
    """How much voxels of each class count; all alike if empty."""

    learning_rate: float = 1e-3
    """At the first step."""
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    """How the rate falls: to 0 at the last step, along half a cosine; to `plateau_factor` of what
    it was, whenever `plateau_validations` in a row have brought nothing; or never."""
    plateau_factor: float = 0.5
    plateau_validations: int = 10
    stop_validations: int = 0
    """After so many validations in a row that brought nothing it ends, and the model is the best
    that was; never if 0."""
    minimum_gain: float = 1e-3
    """The least decrease of the held-out loss that counts as one."""
    ema_decay: float = 0.0
    """Share of the averaged weights that a step leaves as they are: 0.999 averages over about 1000
    steps. They are what is judged and saved; none are kept if 0."""
    precision: Literal["auto", "full", "mixed"] = "auto"
    """Mixed: products in 16 bit, sums and weights in float32; auto: so on a GPU."""
    compiled: bool = False
    """Have torch compile the network, if that gives the same numbers."""

    network: dict[str, Any] = field(default_factory=dict)
    """``architecture``, ``head`` and the other fields of its config, see
    `otzi.networks.architectures`; a training that starts from a model has that model's."""
    width: int | None = None
    levels: int | None = None
    kernel: tuple[int, int, int] | None = None
    """These three are short for those of `network`."""

    validate_every: int = 500
    """In steps."""
    checkpoint_every: int = 100
    """In steps; an interrupted run goes on from the last. Changes nothing of the result."""

    def __post_init__(self) -> None:
        at_least_one = ("steps", "batch", "accumulate", "crop_voxels", "grid_voxels")
        periods = ("plateau_validations", "validate_every", "checkpoint_every")
        for key in (*at_least_one, "validation_crops", *periods):
            if getattr(self, key) < 1:
                raise ConfigurationError(f"{key} = {getattr(self, key)} must be at least 1")
        for key in ("seed", "weight_decay", "stop_validations", "minimum_gain"):
            if not getattr(self, key) >= 0:
                raise ConfigurationError(f"{key} = {getattr(self, key)} must be at least 0")
        if not 0 < self.learning_rate < inf:
            raise ConfigurationError(f"learning_rate = {self.learning_rate} must be above 0")
        for key in ("held_out", "plateau_factor"):
            if not 0 < getattr(self, key) < 1:
                raise ConfigurationError(f"{key} = {getattr(self, key)} must be between 0 and 1")
        if not 0 <= self.ema_decay < 1:
            raise ConfigurationError(f"ema_decay = {self.ema_decay} must be 0 to below 1")
        if not 0 <= self.balance <= 1:
            raise ConfigurationError(f"balance = {self.balance} must be 0 to 1")
        if self.class_weights and not (min(self.class_weights) >= 0 < sum(self.class_weights)):
            raise ConfigurationError(
                f"class_weights = {self.class_weights} must be at least 0, and not all 0"
            )
        if self.grid_voxels > self.crop_voxels:
            raise ConfigurationError(
                f"grid_voxels = {self.grid_voxels} must be at most crop_voxels, {self.crop_voxels}"
            )
        if self.accumulate > self.batch:
            raise ConfigurationError(
                f"accumulate = {self.accumulate} must be at most batch, {self.batch}"
            )
        for key in _NETWORK_KEYS:
            if getattr(self, key) is not None and key in self.network:
                raise ConfigurationError(f"{key} is set twice: keep that of the table network")

    @property
    def network_fields(self) -> dict[str, Any]:
        """What is asked of the network, wherever it was said."""
        asked = {key: value for key in _NETWORK_KEYS if (value := getattr(self, key)) is not None}
        return asked | self.network
