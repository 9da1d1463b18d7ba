"""The published Nano-Ötzi network, its names those of its checkpoints, and how these are read.

Its first layer is a norm of the raw tile, which takes away the contrast between tiles: that is kept
for the sake of equal results. Our own network has none, see `otzi.networks.unet`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from otzi.classes import DEFAULT_CLASSES
from otzi.errors import ConfigurationError, ModelError, NotFoundError, UsageError
from otzi.networks.torch_file import TorchFile
from otzi.networks.unpickle import Record, StoredTensor
from otzi.networks.weights import NANO_OETZI, ModelCard, serialised
from otzi.normalise import MIN_MAX
from otzi.settings import STRICT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NanoOetziConfig", "ResidualUNet3D", "read_published"]

_LEVELS = 5
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


@dataclass(frozen=True, slots=True)
class NanoOetziConfig:
    """What differs between the published networks."""

    __pydantic_config__ = STRICT

    width: int
    """Channels of the finest level; each coarser level has twice as many."""
    outputs: int
    """Channels of the last layer: 4, or 1 for the foreground alone."""

    def __post_init__(self) -> None:
        if self.width < 1 or (self.width > 1 and self.width % 2):
            raise ConfigurationError(f"width {self.width} must be 1 or even: norms have two groups")
        if self.outputs not in _CLASSES:
            raise ConfigurationError(f"outputs {self.outputs} must be 1 or 4")

    @property
    def n_classes(self) -> int:
        """Classes of which it gives the probabilities."""
        return len(_CLASSES[self.outputs])

    @property
    def size_multiple(self) -> int:
        """What the sides of a tile are multiples of, in voxels."""
        return int(2 ** (_LEVELS - 1))


def _convolution(before: int, channels: int, *, rectified: bool = True) -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = [
        ("groupnorm", nn.GroupNorm(min(2, before), before, eps=1e-5)),
        ("conv", nn.Conv3d(before, channels, 3, padding=1, bias=False)),
    ]
    return nn.Sequential(OrderedDict(layers + [("ReLU", nn.ReLU(inplace=True))] * rectified))


class _Block(nn.Module):
    """Three convolutions; what the last two find is added to what the first one made."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(before, channels)
        self.conv2 = _convolution(channels, channels)
        self.conv3 = _convolution(channels, channels, rectified=False)

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(b, channels, z, y, x)`` for ``(b, before, z, y, x)``."""
        x = self.conv1(x)
        return torch.relu_(self.conv3(self.conv2(x)).add_(x))


class _Encoder(nn.Module):
    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.basic_module = _Block(before, channels)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.basic_module(x)
        return features


class _Decoder(nn.Module):
    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        # From n to 2n voxels, as many as the skip has.
        upsample = nn.ConvTranspose3d(coarse, fine, 3, stride=2, padding=1, output_padding=1)
        self.upsampling = nn.Sequential(OrderedDict(upsample=upsample))
        self.basic_module = _Block(fine, fine)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        features: Tensor = self.basic_module(self.upsampling(x).add_(skip))
        return features


class ResidualUNet3D(nn.Module):
    """The network: a tile in, one number for each output and voxel out.

    After Lee et al. 2017 (arXiv:1706.00120), in the variant of pytorch-3dunet, version 1.
    """

    def __init__(self, config: NanoOetziConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**level for level in range(_LEVELS)]
        self.encoders = nn.ModuleList(
            _Encoder(before, width) for before, width in zip((1, *widths), widths, strict=False)
        )
        self.pool = nn.MaxPool3d(2)
        self.decoders = nn.ModuleList(
            _Decoder(coarse, fine)
            for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.final_conv = nn.Conv3d(config.width, config.outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(b, outputs, z, y, x)`` float32 for ``(b, 1, z, y, x)`` normalised density.

        Raises
        ------
        UsageError
            If the sides are no multiples of 16.
        """
        _b, _c, *sides = x.shape
        if any(side % self.config.size_multiple for side in sides):
            raise UsageError(
                f"a tile of {tuple(sides)} voxels does not fit {_LEVELS} levels: take multiples of "
                f"{self.config.size_multiple}"
            )
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            x = encoder(self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for decoder in self.decoders:
            x = decoder(x, skips.pop())
        outputs: Tensor = self.final_conv(x)
        return outputs

    def probabilities(self, x: Tensor) -> Tensor:
        """Give ``(b, n_classes, z, y, x)`` in [0, 1], summing to 1 over the classes."""
        outputs = self(x)
        if self.config.outputs > 1:
            return torch.softmax(outputs, dim=1)
        foreground = outputs.clamp(0, 1)
        return torch.cat([1 - foreground, foreground], dim=1)


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
