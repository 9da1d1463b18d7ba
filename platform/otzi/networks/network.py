"""What all networks are: a tile in, numbers for each voxel out."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from otzi.errors import ConfigurationError, UsageError
from otzi.networks.heads import Head, NormalisedReLU, as_probabilities
from otzi.networks.layers import recomputing
from otzi.temperature import tempered

if TYPE_CHECKING:
    from otzi.box import Zyx

__all__ = ["Network", "NetworkConfig", "check_config", "initialise_layer"]


class NetworkConfig(Protocol):
    """What a network is made of: a frozen dataclass, the fields of which a model's card holds."""

    architecture: ClassVar[str]
    """One of `otzi.networks.names`."""
    density_normalisation: ClassVar[str]
    """Of the density that it is given, one of `otzi.normalise`."""

    @property
    def n_classes(self) -> int:
        """Classes of which it gives the probabilities."""
        ...

    @property
    def in_channels(self) -> int:
        """Channels of the density."""
        ...

    @property
    def outputs(self) -> int:
        """Channels of the last layer."""
        ...

    @property
    def head(self) -> Head:
        """What these mean."""
        ...

    @property
    def checkpointing(self) -> bool:
        """Whether blocks are computed again on the way back, to save memory."""
        ...

    @property
    def size_multiples(self) -> Zyx:
        """What the sides of a tile are multiples of, in voxels, z, y, x."""
        ...

    @property
    def size_multiple(self) -> int:
        """What all sides of a tile may be multiples of, in voxels."""
        ...

    @property
    def working_channels(self) -> int:
        """Full-resolution float32 channels that inference takes at its peak, measured."""
        ...

    def for_classes(self, n_classes: int, head: Head | None = None) -> Self:
        """Give the same network with another last layer."""
        ...


class _OwnConfig(Protocol):
    @property
    def n_classes(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def levels(self) -> int: ...
    @property
    def kernel(self) -> tuple[int, int, int]: ...


def check_config(config: _OwnConfig) -> None:
    """Check what all our own networks have.

    Raises
    ------
    ConfigurationError
        If a number is out of range.
    """
    if config.n_classes < 2 or config.in_channels < 1:
        raise ConfigurationError(
            f"n_classes {config.n_classes} must be at least 2, in_channels {config.in_channels} "
            "at least 1"
        )
    if not 1 <= config.levels <= 8:
        raise ConfigurationError(f"levels {config.levels} must be 1 to 8")
    if config.width < 1:
        raise ConfigurationError(f"width {config.width} must be at least 1")
    if any(k < 1 or k % 2 == 0 for k in config.kernel):
        raise ConfigurationError(f"kernel {config.kernel} must be odd on each axis")


class Network(nn.Module):
    """A network; `forward` gives what its last layer does, ``(b, outputs, z, y, x)``."""

    HEAD_PREFIX: ClassVar[str] = "head."
    """Of the names of the last layer's parameters."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.temperature = 1.0
        """Of its probabilities; fitted after training, see `otzi.temperature`."""
        if config.head == "normalised-relu":
            self.activation = NormalisedReLU()

    def check_sides(self, x: Tensor) -> None:
        """Check that a tile fits.

        Raises
        ------
        UsageError
            If its sides are no multiples of what the network's levels need; in training, if a
            single voxel is left at the coarsest level, which has no statistics.
        """
        multiples = self.config.size_multiples
        sides = tuple(x.shape[2:])
        if any(side % multiple for side, multiple in zip(sides, multiples, strict=True)):
            wanted = multiples[0] if len(set(multiples)) == 1 else f"{multiples} (z, y, x)"
            raise UsageError(
                f"a tile of {sides} voxels does not fit the network's levels: take multiples of "
                f"{wanted}"
            )
        if self.training and x.shape[0] * prod(sides) == prod(multiples):
            raise UsageError(
                f"one tile of {sides} voxels is a single voxel at the coarsest level, nothing to "
                "normalise by: take larger tiles, fewer levels, or several tiles at once"
            )

    def through(self, block: nn.Module, x: Tensor) -> Tensor:
        """Give ``block(x)``, computed again on the way back if the config says so."""
        if self.config.checkpointing and self.training and torch.is_grad_enabled():
            return recomputing(block, x)
        features: Tensor = block(x)
        return features

    def activate(self, outputs: Tensor) -> Tensor:
        """Give the shares of classes that `outputs` mean, in which a regression is judged.

        Parameters
        ----------
        outputs
            ``(b, outputs, z, y, x)``, from `forward`.

        Returns
        -------
        Tensor
            The same shape; in [0, 1] but for the head ``none``. One channel is the foreground.
        """
        match self.config.head:
            case "softmax":
                return torch.softmax(outputs, dim=1)
            case "sigmoid":
                return torch.sigmoid(outputs)
            case "normalised-relu":
                shares: Tensor = self.activation(outputs)
                return shares
            case "none":
                return outputs

    def probabilities(self, x: Tensor) -> Tensor:
        """Give ``(b, n_classes, z, y, x)`` in [0, 1], summing to 1 over the classes.

        Parameters
        ----------
        x
            ``(b, in_channels, z, y, x)`` float32, normalised.
        """
        return self.probabilities_of(self(x))

    def probabilities_of(self, outputs: Tensor) -> Tensor:
        """Give the same for ``(b, outputs, z, y, x)``, from `forward`."""
        shares = self.activate(outputs)
        probabilities = shares if self.config.head == "softmax" else as_probabilities(shares)
        if self.temperature == 1:
            return probabilities
        return tempered(probabilities, self.temperature, axis=1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew: He et al. 2015 (arXiv:1502.01852)."""
        for module in self.modules():
            initialise_layer(module, generator)


def initialise_layer(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of a convolution anew; other modules are left alone."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
