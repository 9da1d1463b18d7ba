"""Checkpoints of the published Nano-Ötzi network, read without executing anything in them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch

from otzi.classes import DEFAULT_CLASSES
from otzi.errors import ConfigurationError, ModelError, NotFoundError
from otzi.networks.names import NANO_OETZI
from otzi.networks.published import NanoOetziConfig, ResidualUNet3D
from otzi.networks.torch_file import TorchFile
from otzi.networks.unpickle import Record, StoredTensor
from otzi.networks.weights import ModelCard, serialised
from otzi.normalise import MIN_MAX

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_published"]

_PREFIX = "model."
_WIDTH_KEY = "encoders.0.basic_module.conv1.conv.weight"
_OUTPUTS_KEY = "final_conv.weight"

_CLASSES = {1: DEFAULT_CLASSES.merged.names, 4: DEFAULT_CLASSES.names}
"""By output channels; a single one is the foreground's probability."""

_OTHERS = {
    "Fm.": "iUNet",
    "_fn.": "iUNet",
    "module_L": "StandardUNet",
    "dense": "DenseNet",
}
"""Other networks of the same project, by a mark of their keys."""


def read_published(path: Path) -> tuple[ResidualUNet3D, ModelCard]:
    """Give the network of a Nano-Ötzi checkpoint and its card, without executing anything in it.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ModelError
        If it is no such checkpoint, is damaged, holds another network, or tries to execute
        something.
    """
    if not path.is_file():
        raise NotFoundError(f"no checkpoint at {path}: give a file of Nano-Ötzi, *.ckpt")
    with TorchFile(path) as file:
        document = file.document if isinstance(file.document, dict) else {}
        stored = document.get("state_dict")
        if not isinstance(stored, dict):
            raise ModelError(f"{path} is no Lightning checkpoint, it has no 'state_dict'")
        config = _config(path, stored)
        # On the meta device: shapes without memory, until they are known to be those of the file.
        with torch.device("meta"):
            network = ResidualUNet3D(config)
        _refuse_other_tensors(path, stored, network)
        tensors = {name: file.tensor(stored[_PREFIX + name]) for name in network.state_dict()}
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32 or not tensor.isfinite().all():
                raise ModelError(
                    f"{path}: {_PREFIX + name!r} is {tensor.dtype}, or not finite throughout: only "
                    "finite float32 weights are taken"
                )
        network.load_state_dict(tensors, assign=True)
        card = ModelCard(
            classes=_CLASSES[config.outputs],
            config=asdict(config),
            spacing_angstrom=None,
            training=_training(document) | {"source": {"file": path.name, "sha256": file.sha256}},
            sha256=hashlib.sha256(serialised(network)).hexdigest(),
            architecture=NANO_OETZI,
            normalisation=MIN_MAX,
        )
    return network, card


def _config(path: Path, stored: dict[Any, Any]) -> NanoOetziConfig:
    _refuse_other_networks(path, stored)
    sizes = []
    for key in (_WIDTH_KEY, _OUTPUTS_KEY):
        tensor = stored.get(_PREFIX + key)
        if not isinstance(tensor, StoredTensor) or len(tensor.shape) != 5:
            raise ModelError(
                f"{path} has no tensor {_PREFIX + key!r} of five axes: it is no ResidualUNet3D of "
                "Nano-Ötzi"
            )
        sizes.append(tensor.shape[0])
    if sizes[1] not in _CLASSES:
        raise ModelError(f"{path}: outputs {sizes[1]} must be 1 or 4; so are the published models")
    try:
        return NanoOetziConfig(*sizes)
    except ConfigurationError as error:
        raise ModelError(f"{path}: {error}; so are the published networks") from error


def _refuse_other_networks(path: Path, stored: dict[Any, Any]) -> None:
    for mark, name in _OTHERS.items():
        for key in stored:
            if mark in str(key):
                raise ModelError(
                    f"{path} holds {name} ({key!r}): of the networks of Nano-Ötzi only "
                    "ResidualUNet3D is taken, that of the published models"
                )


def _refuse_other_tensors(path: Path, stored: dict[Any, Any], network: ResidualUNet3D) -> None:
    wanted = {_PREFIX + name: tuple(t.shape) for name, t in network.state_dict().items()}
    for key in [*wanted, *stored]:
        if key not in stored:
            raise ModelError(f"{path} lacks {key!r}: it is no ResidualUNet3D of Nano-Ötzi")
        if key not in wanted:
            raise ModelError(f"{path} has {key!r} besides: it is no ResidualUNet3D of Nano-Ötzi")
        tensor = stored[key]
        if not isinstance(tensor, StoredTensor) or tensor.shape != wanted[key]:
            found = tensor.shape if isinstance(tensor, StoredTensor) else "no shape"
            raise ModelError(f"{path}: {key!r} has {found}, the others need {wanted[key]}")


def _training(document: dict[Any, Any]) -> dict[str, Any]:
    """Give what a checkpoint says of its training and is plain."""
    settings = document.get("hyper_parameters")
    settings = settings if isinstance(settings, dict) else {}
    inner = settings.get("hparams")
    if isinstance(inner, Record):
        settings = inner.state
    elif isinstance(inner, dict):
        settings = inner
    keys = ("epoch", "global_step", "pytorch-lightning_version")
    return _plain({key: document.get(key) for key in keys}) | {"hyper_parameters": _plain(settings)}


def _plain(pairs: dict[Any, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in pairs.items()
        if isinstance(key, str)
        and (isinstance(value, str | int) or (isinstance(value, float) and isfinite(value)))
    }
