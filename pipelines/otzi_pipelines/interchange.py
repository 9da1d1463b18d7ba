"""Verb model: published checkpoints become model folders, and model folders ONNX files."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from otzi import __version__
from otzi.cli import verb
from otzi.console import Console
from otzi.errors import CannotCreate, ConfigurationError, ModelError, disk_errors
from otzi.files import sync_folder, writing_whole
from otzi.networks.weights import CARD_FILE, load_card, load_model, require_torch, save_model

if TYPE_CHECKING:
    from otzi.networks.weights import ModelCard
    from otzi.tiles.infer import TorchModel

__all__ = ["export_onnx", "import_checkpoint", "model"]

_OPSET = 17
# Measured: up to 1e-5 between torch and onnxruntime on a processor, tiles of 64³ voxels.
_MOST_DIFFERENCE = 1e-4


def import_checkpoint(file: Path, folder: Path) -> ModelCard:
    """Make a model folder of a Nano-Ötzi checkpoint; it is there, whole, or not at all.

    Nothing in the checkpoint is executed, and it is opened for reading only. A folder that was made
    from the same file already stays as it is.

    Raises
    ------
    NotFoundError, ModelError
        If there is no checkpoint, or none that is taken; see `otzi.networks.published`.
    CannotCreate
        If the folder holds something else.
    OutOfSpace, AccessDenied, TemporaryFailure
        If it cannot be written.
    """
    require_torch()
    from otzi.networks.published import read_published

    network, card = read_published(file)
    if (folder / CARD_FILE).is_file():
        earlier = load_card(folder)
        if (earlier.sha256, earlier.training) == (card.sha256, card.training):
            return earlier
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CannotCreate(f"{folder} is there and holds something else: choose a new folder")
    staging = folder.with_name(f"{folder.name}.partial")
    try:
        made = save_model(staging, network, card)
        with disk_errors(folder, "writing"):
            staging.replace(folder)
            sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return made


def export_onnx(source: Path, file: Path, *, force: bool = False) -> float | None:
    """Write a model as an ONNX file, and give by how much a foreign runtime differs from torch.

    The file is there, whole, or not at all. Its input ``density`` is ``(b, 1, z, y, x)`` float32,
    normalised, sides multiples of ``size_multiple``; its output ``probabilities`` ``(b, c, z, y,
    x)`` float32. Its metadata say, as JSON: ``classes``, ``normalisation``, ``size_multiple``,
    ``spacing_angstrom`` and ``weights_sha256``.

    Parameters
    ----------
    source
        A model folder, or a Nano-Ötzi checkpoint.
    file
        In a folder that is there.
    force
        Replace a file that is there.

    Returns
    -------
    float or None
        The largest difference of a probability; None where onnxruntime is not installed.

    Raises
    ------
    ConfigurationError
        If onnx is not installed.
    NotFoundError, ModelError
        If there is no model, or the foreign runtime gives other probabilities than torch.
    CannotCreate, OutOfSpace, AccessDenied, TemporaryFailure
        If the file cannot be made.
    """
    if not file.parent.is_dir():
        raise CannotCreate(f"{file.parent} is no folder: make it first")
    if file.is_dir() or (file.exists() and not force):
        raise CannotCreate(f"{file} is there already: pass --force to replace a file")
    network = load_model(source, device="cpu")
    content = _onnx(network)
    difference = _difference(content, network)
    if difference is not None and not difference <= _MOST_DIFFERENCE:
        raise ModelError(
            f"onnxruntime differs from torch by {difference:.1e}, the limit is "
            f"{_MOST_DIFFERENCE:.0e}: {file} is not written, try other versions of both"
        )
    with disk_errors(file, "writing"), writing_whole(file) as opened:
        opened.write(content)
    return difference


def _onnx(network: TorchModel) -> bytes:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"ONNX files need {error.name}, which is not installed: pip install 'otzi[onnx]'"
        ) from error
    import torch

    from otzi_pipelines.onnx_modules import Probabilities

    axes = {0: "batch", 2: "z", 3: "y", 4: "x"}
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        exported = Path(scratch, "network.onnx")
        # This exporter is the older one; the newer needs another package and keeps paths of this
        # machine in the file. Both warn of what they do inside.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Probabilities(network.network),
            (torch.zeros(1, 1, *[network.size_multiple] * 3),),
            exported,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["density"],
            output_names=["probabilities"],
            dynamic_axes={"density": axes, "probabilities": axes},
        )
        model = onnx.load(exported)
    model.producer_name, model.producer_version = "otzi", __version__
    said = {
        "classes": network.classes,
        "normalisation": network.normalisation,
        "size_multiple": network.size_multiple,
        "spacing_angstrom": network.card.spacing_angstrom,
        "weights_sha256": network.card.sha256,
    }
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in said.items()})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _difference(content: bytes, network: TorchModel) -> float | None:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    n = network.size_multiple
    tiles = np.random.default_rng(0).random((1, 1, 2 * n, 3 * n, 4 * n), np.float32)
    (found,) = session.run(["probabilities"], {"density": tiles})
    return float(np.abs(found - network(tiles)).max())


@verb
def model(
    console: Console,
    action: Annotated[
        Literal["import", "export"],
        typer.Argument(help="A Nano-Ötzi checkpoint in, or a model out as ONNX."),
    ],
    source: Annotated[
        Path, typer.Argument(metavar="FILE.ckpt|DIR", help="The checkpoint; the model to export.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DIR|FILE.onnx", help="The model folder; the ONNX file.")
    ],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="With export: replace a file that is there.")
    ] = False,
) -> None:
    """Make a model folder of a published checkpoint, or an ONNX file of a model."""
    document: dict[str, Any]
    if action == "import":
        card = import_checkpoint(source, target)
        document = {"model": str(target), "classes": card.classes, "config": card.config}
        document |= {"source": card.training["source"], "sha256": card.sha256}
    else:
        difference = export_onnx(source, target, force=force)
        document = {"file": str(target), "largest_difference": difference}
        if difference is None:
            console.warn(f"{target} is not checked: pip install onnxruntime")
    console.result(document, str(target))
