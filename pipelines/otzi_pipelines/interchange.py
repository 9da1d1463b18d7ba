"""Verb model: published checkpoints become model folders, and models go to other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from otzi.cli import verb
from otzi.console import Console
from otzi.errors import CannotCreate, disk_errors
from otzi.files import sync_folder
from otzi.networks.weights import CARD_FILE, load_card, require_torch, save_model
from otzi_pipelines.bioimageio_package import export_bioimageio
from otzi_pipelines.onnx_network import export_onnx

if TYPE_CHECKING:
    from otzi.networks.weights import ModelCard

__all__ = ["import_checkpoint", "model"]


def import_checkpoint(file: Path, folder: Path) -> ModelCard:
    """Make a model folder of a Nano-Ötzi checkpoint; it is there, whole, or not at all.

    Nothing in the checkpoint is executed, and it is opened for reading only. A folder that was made
    from the same file already stays as it is.

    Raises
    ------
    NotFoundError, ModelError
        If there is no checkpoint, or none that is taken; see `otzi.networks.published_file`.
    CannotCreate
        If the folder holds something else.
    OutOfSpace, AccessDenied, TemporaryFailure
        If it cannot be written.
    """
    require_torch()
    from otzi.networks.published_file import read_published

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


@verb
def model(
    console: Console,
    action: Annotated[
        Literal["import", "export"],
        typer.Argument(help="A Nano-Ötzi checkpoint in, or a model out."),
    ],
    source: Annotated[
        Path, typer.Argument(metavar="FILE.ckpt|DIR", help="The checkpoint; the model to export.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="The model folder; the file to make.")
    ],
    *,
    to: Annotated[
        Literal["onnx", "bioimageio"],
        typer.Option(help="With export: an ONNX file, or a package for bioimage.io, *.zip."),
    ] = "onnx",
    force: Annotated[
        bool, typer.Option("--force", help="With export: replace a file that is there.")
    ] = False,
) -> None:
    """Make a model folder of a published checkpoint, or a file for other programs of a model."""
    document: dict[str, Any]
    if action == "import":
        card = import_checkpoint(source, target)
        document = {"model": str(target), "classes": card.classes, "config": card.config}
        document |= {"source": card.training["source"], "sha256": card.sha256}
    else:
        export = export_onnx if to == "onnx" else export_bioimageio
        difference = export(source, target, force=force)
        document = {"file": str(target), "largest_difference": difference}
        if difference is None:
            console.warn(f"{target} is not checked: pip install onnxruntime")
    console.result(document, str(target))
