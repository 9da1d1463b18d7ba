"""The model folder: ``model.json`` says what it is, ``weights.safetensors`` holds it.

No code is stored and none is executed. ``model.json`` is written last: where it is, the model is
whole.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import otzi
from otzi.errors import ConfigurationError, ModelError, NotFoundError, disk_errors
from otzi.files import writing_whole
from otzi.networks.names import ARCHITECTURES, RESIDUAL_UNET
from otzi.normalise import MIN_MAX, ROBUST
from otzi.settings import STRICT, read_settings

if TYPE_CHECKING:
    from torch import Tensor

    from otzi.networks.network import Network
    from otzi.tiles.infer import TorchModel

__all__ = [
    "CARD_FILE",
    "WEIGHTS_FILE",
    "Device",
    "ModelCard",
    "load_card",
    "load_model",
    "require_torch",
    "save_model",
    "serialised",
    "write_card",
]

Device = Literal["auto", "cpu", "cuda"]
"""Where it is computed; ``auto`` is a CUDA device where there is one that can be used."""

CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
"""What a model folder holds."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is and where it comes from; plain JSON throughout."""

    __pydantic_config__ = STRICT

    classes: tuple[str, ...]
    """Class names in the order of the channels."""
    config: dict[str, Any]
    """The fields of the config of the `architecture`, see `otzi.networks.architectures`."""
    spacing_angstrom: tuple[float, float, float] | None
    """Voxel size, z, y, x, of what it was trained on; None where it is not known."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings, and ids and digests of what it was trained on."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """How well it did on what was held out."""
    sha256: str = ""
    """Of the weights file."""
    architecture: str = RESIDUAL_UNET
    """One of `otzi.networks.names`."""
    normalisation: str = ROBUST
    """Of the density, one of `otzi.normalise`."""
    temperature: float = 1.0
    """Of its probabilities, fitted after training, see `otzi.temperature`."""
    format: int = _FORMAT
    otzi_version: str = otzi.__version__

    @property
    def digest(self) -> str:
        """Of all that decides the probabilities: the weights, and the temperature if any."""
        if self.temperature == 1:
            return self.sha256
        return hashlib.sha256(f"{self.sha256} at {self.temperature!r}".encode()).hexdigest()


def save_model(folder: Path, network: Network, card: ModelCard) -> ModelCard:
    """Write a model folder and give its card, completed with the digest of the weights.

    Raises
    ------
    OutOfSpace, AccessDenied
        If the folder cannot be written.
    """
    weights = serialised(network)
    card = replace(
        card, sha256=hashlib.sha256(weights).hexdigest(), temperature=network.temperature
    )
    with disk_errors(folder, "writing"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD_FILE).unlink(missing_ok=True)
        with writing_whole(folder / WEIGHTS_FILE) as file:
            file.write(weights)
    return write_card(folder, card)


def write_card(folder: Path, card: ModelCard) -> ModelCard:
    """Write the card of a model folder by one atomic rename, and give it.

    Raises
    ------
    OutOfSpace, AccessDenied
        If it cannot be written; the one before stays.
    """
    with disk_errors(folder, "writing"), writing_whole(folder / CARD_FILE) as file:
        file.write(json.dumps(asdict(card), indent=2).encode())
    return load_card(folder)


def serialised(network: Network) -> bytes:
    """Give the content of the weights file of a network; the same for the same weights."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()})


def load_card(path: str | Path) -> ModelCard:
    """Give the card of a model folder without its weights.

    Raises
    ------
    NotFoundError
        If there is nothing at the path.
    ModelError
        If it is no model folder, or one of another format or architecture.
    """
    folder = _model_folder(Path(path))
    with disk_errors(folder, "reading"):
        text = (folder / CARD_FILE).read_bytes()
    try:
        card = read_settings(ModelCard, json.loads(text), str(folder / CARD_FILE))
    except ConfigurationError as error:
        raise ModelError(f"{error}: train or export the model again") from error
    except ValueError as error:
        raise ModelError(f"{folder / CARD_FILE} is not JSON: {error}") from error
    if not 0 < card.temperature < inf:
        raise ModelError(
            f"{folder} has temperature {card.temperature}, it must be above 0: fit it again with "
            "`otzi evaluate --fit-temperature`"
        )
    for key, found, known in (
        ("format", card.format, (_FORMAT,)),
        ("architecture", card.architecture, tuple(ARCHITECTURES)),
        ("normalisation", card.normalisation, (ROBUST, MIN_MAX)),
    ):
        if found not in known:
            raise ModelError(
                f"{folder} has {key} {found!r}, otzi {otzi.__version__} knows "
                f"{' and '.join(map(repr, known))}: "
                f"use otzi {card.otzi_version}, which made it"
            )
    return card


def load_model(
    path: str | Path, *, device: Device = "auto", threads: int | None = None
) -> TorchModel:
    """Give the model of a folder, or of a Nano-Ötzi checkpoint, ready to be called.

    Parameters
    ----------
    path
        A model folder, a file in it, or a ``.ckpt``, in which nothing is executed.
    device
        ``auto``, ``cpu`` or ``cuda``.
    threads
        Processor threads for one call; torch's own choice where left out.

    Raises
    ------
    NotFoundError
        If there is nothing at the path.
    ModelError
        If it is no model folder, is damaged, or its weights do not fit its card.
    DeviceUnavailable
        If there is no such device.
    """
    path = Path(path)
    if path.suffix == ".ckpt":
        require_torch()
        from otzi.networks.published_file import read_published
        from otzi.tiles.infer import TorchModel

        return TorchModel(*read_published(path), path.resolve(), device=device, threads=threads)
    card = load_card(path)
    folder = _model_folder(path)
    require_torch()
    from otzi.networks.architectures import build, config_from_json
    from otzi.tiles.infer import TorchModel

    try:
        config = config_from_json(card.architecture, card.config, f"config of {folder / CARD_FILE}")
    except ConfigurationError as error:
        raise ModelError(f"{error}: train or export the model again") from error
    if config.n_classes != len(card.classes):
        raise ModelError(
            f"{folder / CARD_FILE} names {len(card.classes)} classes ({', '.join(card.classes)}) "
            f"and has {config.n_classes} output channels: they must be as many"
        )
    network = build(config)
    network.temperature = card.temperature
    network.load_state_dict(_fitting_tensors(folder, card, network))
    return TorchModel(network, card, folder.resolve(), device=device, threads=threads)


def _fitting_tensors(folder: Path, card: ModelCard, network: Network) -> dict[str, Tensor]:
    from safetensors.torch import load

    with disk_errors(folder, "reading"):
        weights = (folder / WEIGHTS_FILE).read_bytes()
    if hashlib.sha256(weights).hexdigest() != card.sha256:
        raise ModelError(
            f"{folder / WEIGHTS_FILE} is not the file its card describes (SHA-256 differs): copy "
            "the whole folder again"
        )
    tensors: dict[str, Tensor] = load(weights)
    wanted = network.state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        state = "lacks" if name in wanted else "has an unexpected"
        raise ModelError(f"{folder / WEIGHTS_FILE} {state} tensor {name!r}: it fits another config")
    for name, tensor in wanted.items():
        if tensors[name].shape != tensor.shape:
            raise ModelError(
                f"{folder / WEIGHTS_FILE}: {name!r} has shape {tuple(tensors[name].shape)}, its "
                f"config needs {tuple(tensor.shape)}"
            )
    return tensors


def _model_folder(path: Path) -> Path:
    if not path.exists():
        raise NotFoundError(f"no model at {path}: `otzi train` makes one")
    if path.suffix == ".ckpt":
        raise ModelError(
            f"{path} is a checkpoint, which has no card: `otzi model import {path} DIR` makes a "
            "model folder of it"
        )
    folder = path if path.is_dir() else path.parent
    for name in (CARD_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder} is no model folder, it has no {name}: give the folder that `otzi train` "
                "made"
            )
    return folder


def require_torch() -> None:
    """Check that networks can be had here.

    Raises
    ------
    ConfigurationError
        If torch or safetensors is not installed.
    """
    try:
        import safetensors  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "networks need torch and safetensors: pip install 'otzi[train]'"
        ) from error
