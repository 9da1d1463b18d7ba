"""Networks as ONNX files, compared with what a foreign runtime makes of them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from otzi import __version__
from otzi.errors import CannotCreate, ConfigurationError, ModelError, disk_errors
from otzi.files import writing_whole
from otzi.networks.weights import load_model

if TYPE_CHECKING:
    from typing import Any

    from otzi.tiles.infer import TorchModel

__all__ = ["OPSET", "check_target", "export_onnx", "onnx_content", "said_of"]

OPSET = 17
# Measured: up to 1e-5 between torch and onnxruntime on a processor, tiles of 64³ voxels.
_MOST_DIFFERENCE = 1e-4


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
    check_target(file, force=force)
    content, difference = onnx_content(load_model(source, device="cpu"))
    with disk_errors(file, "writing"), writing_whole(file) as opened:
        opened.write(content)
    return difference


def check_target(file: Path, *, force: bool) -> None:
    """Check that a file may be written, over one that is there if `force` says so.

    Raises
    ------
    CannotCreate
        If it has no folder, or is there already.
    """
    if not file.parent.is_dir():
        raise CannotCreate(f"{file.parent} is no folder: make it first")
    if file.is_dir() or (file.exists() and not force):
        raise CannotCreate(f"{file} is there already: pass --force to replace a file")


def said_of(network: TorchModel) -> dict[str, Any]:
    """Give what other programs have to know of a model, as plain JSON."""
    return {
        "classes": list(network.classes),
        "normalisation": network.normalisation,
        "size_multiple": network.size_multiple,
        "spacing_angstrom": network.card.spacing_angstrom,
        "weights_sha256": network.card.sha256,
    }


def onnx_content(network: TorchModel) -> tuple[bytes, float | None]:
    """Give a model as the content of an ONNX file, and by how much a foreign runtime differs.

    Raises
    ------
    ConfigurationError
        If onnx is not installed.
    ModelError
        If the foreign runtime gives other probabilities than torch.
    """
    content = _onnx(network)
    difference = _difference(content, network)
    if difference is not None and not difference <= _MOST_DIFFERENCE:
        raise ModelError(
            f"onnxruntime differs from torch by {difference:.1e}, the limit is "
            f"{_MOST_DIFFERENCE:.0e}: nothing is written, try other versions of both"
        )
    return content, difference


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
            (torch.zeros(1, network.network.config.in_channels, *[network.size_multiple] * 3),),
            exported,
            dynamo=False,
            opset_version=OPSET,
            input_names=["density"],
            output_names=["probabilities"],
            dynamic_axes={"density": axes, "probabilities": axes},
        )
        model = onnx.load(exported)
    model.producer_name, model.producer_version = "otzi", __version__
    said = {key: json.dumps(value) for key, value in said_of(network).items()}
    onnx.helper.set_model_props(model, said)
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
    tiles = np.random.default_rng(0).random(
        (1, network.network.config.in_channels, 2 * n, 3 * n, 4 * n), np.float32
    )
    (found,) = session.run(["probabilities"], {"density": tiles})
    return float(np.abs(found - network(tiles)).max())
