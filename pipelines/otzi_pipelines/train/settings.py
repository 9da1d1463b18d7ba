"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, inf, pi

from otzi.errors import ConfigurationError
from otzi.settings import STRICT

__all__ = ["TrainSettings"]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What decides the result, together with the data; the keys of ``--config``.

    Raises
    ------
    ConfigurationError
        If a number is out of range.
    """

    __pydantic_config__ = STRICT

    steps: int = 20_000
    """Batches to learn from."""
    seed: int = 0
    """Of the first weights and of all crops."""

    batch: int = 4
    crop_voxels: int = 128
    grid_voxels: int = 32
    """Crops begin at multiples of this, as chunks of the store do."""
    balance: float = 0.5
    """Share of crops that are drawn around a place of a certain class, each class alike."""
    turns: bool = True
    """Flip crops, and turn them about z by quarters."""
    held_out: float = 0.2
    """The end of each tomogram, along its longest axis, that is only for validation."""
    validation_crops: int = 16

    learning_rate: float = 1e-3
    """At the first step; falls to 0 at the last along a half cosine."""
    weight_decay: float = 1e-4
    class_weights: tuple[float, ...] = ()
    """How much voxels of each class count; all alike if empty."""

    width: int | None = None
    levels: int | None = None
    kernel: tuple[int, int, int] | None = None
    """These three are fields of `otzi.networks.unet.UNetConfig`, whose defaults they have; a
    training that starts from a model has that model's."""

    validate_every: int = 500
    """In steps."""
    checkpoint_every: int = 100
    """In steps; an interrupted run goes on from the last. Changes nothing of the result."""

    def __post_init__(self) -> None:
        at_least_one = ("steps", "batch", "crop_voxels", "grid_voxels", "validation_crops")
        for key in (*at_least_one, "validate_every", "checkpoint_every"):
            if getattr(self, key) < 1:
                raise ConfigurationError(f"{key} = {getattr(self, key)} must be at least 1")
        for key in ("seed", "weight_decay"):
            if not getattr(self, key) >= 0:
                raise ConfigurationError(f"{key} = {getattr(self, key)} must be at least 0")
        if not 0 < self.learning_rate < inf:
            raise ConfigurationError(f"learning_rate = {self.learning_rate} must be above 0")
        if not 0 < self.held_out < 1:
            raise ConfigurationError(f"held_out = {self.held_out} must be between 0 and 1")
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

    def rate(self, step: int) -> float:
        """Give the learning rate of a step, counted from 0."""
        return self.learning_rate * (1 + cos(pi * step / self.steps)) / 2
