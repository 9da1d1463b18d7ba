"""The network that a training begins with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from otzi.errors import ConfigurationError
from otzi.networks.architectures import adapt_head, build, config_from_json
from otzi.networks.names import NANO_OETZI, RESIDUAL_UNET
from otzi_pipelines.train.losses import HEADS, check_head

if TYPE_CHECKING:
    from otzi.networks.network import Network, NetworkConfig
    from otzi.tiles.infer import TorchModel
    from otzi_pipelines.train.settings import TrainSettings

__all__ = ["first_network", "network_config"]

_FREE = ("head", "checkpointing")
"""What may differ from the network to start from."""


def first_network(
    config: NetworkConfig, seed: int, classes: tuple[str, ...], origin: TorchModel | None = None
) -> Network:
    """Give the network to begin with: its weights are drawn, or those of `origin`.

    Where that has other classes or another head, the last layer is new.
    """
    generator = torch.Generator().manual_seed(seed)
    if origin is None:
        network = build(config)
        network.initialise(generator)
        return network
    network = origin.network
    if origin.classes != classes or network.config.head != config.head:
        network = adapt_head(network, config.n_classes, generator, config.head)
    begun = build(config)
    begun.load_state_dict(network.state_dict())
    return begun


def network_config(
    settings: TrainSettings, n_classes: int, origin: NetworkConfig | None = None
) -> NetworkConfig:
    """Give the network that settings mean, or `origin`, that of the model to start from.

    Raises
    ------
    ConfigurationError
        If the settings ask for another network than `origin`, for one that does not exist, or loss,
        crops, class weights and network do not fit together.
    """
    asked = settings.network_fields
    if origin is None:
        config = _asked(settings, n_classes, asked)
    else:
        config = _adapted(settings, n_classes, asked, origin)
    check_head(settings.loss, config.head)
    if settings.crop_voxels % config.size_multiple:
        raise ConfigurationError(
            f"crop_voxels = {settings.crop_voxels} must be a multiple of {config.size_multiple} "
            "for the levels of this network"
        )
    if settings.class_weights and len(settings.class_weights) != n_classes:
        raise ConfigurationError(
            f"class_weights has {len(settings.class_weights)} values for {n_classes} classes"
        )
    return config


def _asked(settings: TrainSettings, n_classes: int, asked: dict[str, Any]) -> NetworkConfig:
    fields = {"head": HEADS[settings.loss][0]} | asked
    architecture = fields.pop("architecture", RESIDUAL_UNET)
    if architecture != NANO_OETZI:
        return config_from_json(architecture, {"n_classes": n_classes} | fields)
    head = fields.pop("head")
    return config_from_json(architecture, {"outputs": n_classes} | fields).for_classes(
        n_classes, head
    )


def _adapted(
    settings: TrainSettings, n_classes: int, asked: dict[str, Any], origin: NetworkConfig
) -> NetworkConfig:
    for key, value in asked.items():
        found = getattr(origin, key, None)
        wanted = tuple(value) if isinstance(value, list) else value
        if key not in _FREE and wanted != found:
            raise ConfigurationError(
                f"network.{key} = {value!r}, but the network to start from has {found!r}: leave it "
                "out"
            )
    fits = origin.head in HEADS[settings.loss]
    head = asked.get("head", origin.head if fits else HEADS[settings.loss][0])
    config = origin.for_classes(n_classes, head)
    recomputes = asked.get("checkpointing", config.checkpointing)
    if recomputes != config.checkpointing:
        if config.architecture == NANO_OETZI:
            raise ConfigurationError("network.checkpointing: a published network has none")
        config = replace(config, checkpointing=recomputes)  # type: ignore[type-var]
    return config
