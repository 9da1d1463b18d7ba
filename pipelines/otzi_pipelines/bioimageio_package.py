"""Models as packages that programs of bioimage.io read: ONNX weights, and what they stand for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import ConfigurationError, disk_errors
from otzi.files import writing_whole
from otzi.networks.names import ARCHITECTURES, DENSE_NET, NANO_OETZI, RESIDUAL_UNET, UNET
from otzi.networks.weights import load_model
from otzi.normalise import MIN_MAX, Normalisation
from otzi_pipelines.onnx_network import OPSET, check_target, onnx_content, said_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.tiles.infer import TorchModel

__all__ = ["export_bioimageio"]

_HALO_VOXELS = 16
"""What readers cut off of each block: half the overlap that `otzi segment` blends."""
_LEAST_SIDE_VOXELS = 64
"""Of a block."""

_CITED = {
    UNET: ("Çiçek et al. 2016, 3D U-Net", "10.1007/978-3-319-46723-8_49"),
    RESIDUAL_UNET: ("Lee et al. 2017, residual symmetric U-Net", "10.48550/arXiv.1706.00120"),
    DENSE_NET: ("Bui et al. 2019, skip-connected 3D DenseNet", "10.1016/j.bspc.2019.101613"),
    NANO_OETZI: ("Nguyen et al. 2022, Finding Nano-Ötzi", "10.1109/TVCG.2022.3186146"),
}


def export_bioimageio(source: Path, file: Path, *, force: bool = False) -> float | None:
    """Write a model as a package, and give by how much a foreign runtime differs from torch.

    The file is there, whole, or not at all. In it are ONNX weights, axes with the voxel size, the
    normalisation as steps before, and a tile with its probabilities by which readers check
    themselves. Authors and licence are left to whoever publishes it.

    Parameters
    ----------
    source
        A model folder, or a Nano-Ötzi checkpoint.
    file
        A ``.zip`` in a folder that is there.
    force
        Replace a file that is there.

    Returns
    -------
    float or None
        The largest difference of a probability; None where onnxruntime is not installed.

    Raises
    ------
    ConfigurationError
        If bioimageio.spec or onnx is not installed.
    NotFoundError, ModelError
        If there is no model, or the foreign runtime gives other probabilities than torch.
    CannotCreate, OutOfSpace, AccessDenied, TemporaryFailure
        If the file cannot be made.
    """
    check_target(file, force=force)
    try:
        from bioimageio.spec import save_bioimageio_package
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "packages need bioimageio.spec, which is not installed: pip install 'otzi[bioimageio]'"
        ) from error
    model = load_model(source, device="cpu")
    weights, difference = onnx_content(model)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "weights.onnx").write_bytes(weights)
        (folder / "README.md").write_text(_documentation(model, file.stem))
        density, probabilities = _example(model)
        np.save(folder / "density.npy", density)
        np.save(folder / "probabilities.npy", probabilities)
        made = save_bioimageio_package(
            _description(model, folder, file.stem), output_path=folder / "package.zip"
        )
        content = Path(made).read_bytes()
    with disk_errors(file, "writing"), writing_whole(file) as opened:
        opened.write(content)
    return difference


def _description(model: TorchModel, folder: Path, name: str) -> Any:
    """Give the description of a package whose files are in a folder."""
    from bioimageio.spec.common import FileDescr
    from bioimageio.spec.model import v0_5 as spec

    text, doi = _CITED[model.card.architecture]
    made = model.path if model.path.is_file() else model.path / "model.json"
    density = spec.InputTensorDescr(
        id=spec.TensorId("density"),
        axes=_axes(spec, model, _channels(model), of_input=True),
        test_tensor=FileDescr(source=folder / "density.npy"),
        data=spec.IntervalOrRatioDataDescr(type="float32"),
        preprocessing=_preprocessing(spec, model.normalisation),
    )
    probabilities = spec.OutputTensorDescr(
        id=spec.TensorId("probabilities"),
        axes=_axes(spec, model, model.classes, of_input=False),
        test_tensor=FileDescr(source=folder / "probabilities.npy"),
        data=spec.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
    )
    return spec.ModelDescr(
        name=f"otzi {re.sub('[^A-Za-z0-9_+() -]', '-', name)}"[:64],
        description=f"Probabilities of {', '.join(model.classes)} in cryo-electron tomograms.",
        documentation=FileDescr(source=folder / "README.md"),
        cite=[spec.CiteEntry(text=text, doi=spec.Doi(doi))],
        tags=["cryo-electron tomography", "segmentation", "3d", model.card.architecture],
        timestamp=spec.Datetime(datetime.fromtimestamp(made.stat().st_mtime, UTC)),
        inputs=[density],
        outputs=[probabilities],
        weights=spec.WeightsDescr(
            onnx=spec.OnnxWeightsDescr(source=folder / "weights.onnx", opset_version=OPSET)
        ),
        config=spec.Config.model_validate({"otzi": said_of(model)}),
    )


def _axes(spec: Any, model: TorchModel, channels: tuple[str, ...], *, of_input: bool) -> list[Any]:
    named = [spec.Identifier(re.sub(r"\W|^(?=\d)", "_", channel)) for channel in channels]
    axes = [spec.BatchAxis(), spec.ChannelAxis(channel_names=named)]
    spacing = model.card.spacing_angstrom
    least = -(-_LEAST_SIDE_VOXELS // model.size_multiple) * model.size_multiple
    for i, letter in enumerate("zyx"):
        axis = spec.AxisId(letter)
        unit = {} if spacing is None else {"scale": spacing[i], "unit": "angstrom"}
        if of_input:
            size = spec.ParameterizedSize(min=least, step=model.size_multiple)
            axes.append(spec.SpaceInputAxis(id=axis, size=size, concatenable=True, **unit))
        else:
            like = spec.SizeReference(tensor_id=spec.TensorId("density"), axis_id=axis)
            axes.append(spec.SpaceOutputAxisWithHalo(id=axis, size=like, halo=_HALO_VOXELS, **unit))
    return axes


def _preprocessing(spec: Any, way: str) -> list[Any]:
    """Give the normalisation of a whole sample; its statistics are taken before the first step."""
    whole = [spec.AxisId(axis) for axis in ("channel", "z", "y", "x")]
    if way == MIN_MAX:
        scaled = spec.ScaleRangeKwargs(axes=whole, eps=1e-12)
        return [spec.ScaleRangeDescr(kwargs=scaled)]
    clipped = spec.ClipKwargs(min_percentile=0.1, max_percentile=99.9, axes=whole)
    scaled = spec.ZeroMeanUnitVarianceKwargs(axes=whole, eps=1e-12)
    return [
        spec.ClipDescr(kwargs=clipped),
        spec.ZeroMeanUnitVarianceDescr(kwargs=scaled),
    ]


def _example(model: TorchModel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give density as acquired, and the probabilities of it."""
    n = -(-_LEAST_SIDE_VOXELS // model.size_multiple) * model.size_multiple
    shape = (1, len(_channels(model)), n, n, n)
    density = np.random.default_rng(0).normal(100, 2000, shape).astype(np.float32)
    if model.normalisation == MIN_MAX:
        low, high = float(density.min()), float(density.max())
        normalise = Normalisation(offset=low, scale=high - low, low=low, high=high)
    else:
        normalise = Normalisation.from_array(density)
    return density, model(normalise(density))


def _channels(model: TorchModel) -> tuple[str, ...]:
    n = model.network.config.in_channels
    return ("density",) if n == 1 else tuple(f"density_{i}" for i in range(n))


def _documentation(model: TorchModel, name: str) -> str:
    card = model.card
    spacing = card.spacing_angstrom
    lines = [
        f"# {name}",
        f"{ARCHITECTURES[card.architecture]}. Channels: {', '.join(model.classes)}, probabilities "
        "that sum to 1.",
        f"Voxel size of what it was trained on, z, y, x: {spacing} Å."
        if spacing
        else "The voxel size of what it was trained on is not known.",
        f"Density is normalised so: {card.normalisation}. Programs that take statistics of a block "
        "instead of the volume give other probabilities.",
        "## Validation",
        "Segment tomograms that it was not trained on, label some of their voxels by hand, and "
        "compare: Dice of each class and calibration, `otzi evaluate` gives both.",
    ]
    scores = {key: value for key, value in card.metrics.items() if isinstance(value, float)}
    if scores:
        lines.append("On what was held out in training:")
        lines.append("\n".join(f"* {key}: {value:.4f}" for key, value in scores.items()))
    return "\n\n".join(lines) + "\n"
