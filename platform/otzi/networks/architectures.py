"""Networks by the name of their architecture, and new last layers for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otzi.errors import ConfigurationError
from otzi.networks.dense_net import DenseNet3D, DenseNet3DConfig
from otzi.networks.names import ARCHITECTURES, DENSE_NET, NANO_OETZI, RESIDUAL_UNET, UNET
from otzi.networks.network import Network, NetworkConfig, initialise_layer
from otzi.networks.published import NanoOetziConfig, ResidualUNet3D
from otzi.networks.residual_unet import ResidualSymmetricUNet, ResidualSymmetricUNetConfig
from otzi.networks.unet3d import UNet3D, UNet3DConfig
from otzi.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from otzi.networks.heads import Head

__all__ = [
    "Network",
    "NetworkConfig",
    "adapt_head",
    "architectures",
    "build",
    "config_from_json",
]

_MADE_OF: dict[str, tuple[type[NetworkConfig], type[Network]]] = {
    UNET: (UNet3DConfig, UNet3D),
    RESIDUAL_UNET: (ResidualSymmetricUNetConfig, ResidualSymmetricUNet),
    DENSE_NET: (DenseNet3DConfig, DenseNet3D),
    NANO_OETZI: (NanoOetziConfig, ResidualUNet3D),
}


def architectures() -> Mapping[str, str]:
    """Give the name of each architecture, with one line for people."""
    return ARCHITECTURES


def config_from_json(
    architecture: str, fields: dict[str, Any], source: str = "network"
) -> NetworkConfig:
    """Give the config that the fields of a card or of settings mean; `source` names them in errors.

    Raises
    ------
    ConfigurationError
        If there is no such architecture, or a field is unknown or out of range.
    """
    if architecture not in _MADE_OF:
        raise ConfigurationError(
            f"architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}"
        )
    kind, _ = _MADE_OF[architecture]
    return read_settings(kind, fields, source)


def build(config: NetworkConfig) -> Network:
    """Give the network of a config; its weights are to be initialised or loaded."""
    _, kind = _MADE_OF[config.architecture]
    return kind(config)


def adapt_head(
    network: Network, n_classes: int, generator: torch.Generator, head: Head | None = None
) -> Network:
    """Give a network of the same weights with a new last layer, for other classes.

    Parameters
    ----------
    network
        It stays as it is.
    n_classes
        Of the new network.
    generator
        Of the weights of its last layer.
    head
        What its outputs mean; as before if None.

    Raises
    ------
    ConfigurationError
        If the architecture cannot have such a head.
    """
    adapted = build(network.config.for_classes(n_classes, head))
    kept = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith((network.HEAD_PREFIX, "activation."))
    }
    adapted.load_state_dict(kept, strict=False)
    initialise_layer(adapted.get_submodule(network.HEAD_PREFIX.removesuffix(".")), generator)
    adapted.to(next(network.parameters()).device)
    return adapted.train(network.training)
