"""One block of pseudo-labels, wherever it is computed: what is told of it, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from otzi.collection import open_collection
from otzi.errors import ConfigurationError, VerificationError
from otzi.pseudo.forest_file import load_forest
from otzi.pseudo.lazy import block_labeller
from otzi.tiles.blend import quantise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.networks.weights import Device
    from otzi.pseudo.forest import EarlyExit, StrokeForest

__all__ = ["Classes", "LabelTask", "label_box", "stored_labels"]

Classes = Literal["all", "2"]

_WHOLE = 255


@dataclass(frozen=True, slots=True)
class LabelTask:
    """What the blocks of a tomogram have in common."""

    collection: str
    """Folder or URL, as whoever computes reaches it."""
    tomogram: str
    raw_sha256: str
    """Of the density that is meant."""
    forest: StrokeForest | Path
    """Itself, or the folder of it, which is read once by each process."""
    forest_sha256: str
    early_exit: EarlyExit | None
    soft: bool
    classes: Classes
    device: Device
    arithmetic: str
    """What decides the last bits: everyone who takes part must have the same."""


def label_box(task: LabelTask, box: Box) -> tuple[NDArray[np.uint8], int]:
    """Give the labels of a box as they are stored, and how many voxels saw all trees.

    Raises
    ------
    VerificationError
        If the density or the forest is not the one that is meant.
    ConfigurationError
        If this machine computes other last bits.
    """
    density = _density(task.collection, task.tomogram, task.raw_sha256)
    forest = task.forest
    if isinstance(forest, Path):
        forest = _forest(forest, task.forest_sha256)
    label, arithmetic = block_labeller(task.device)
    if arithmetic != task.arithmetic:
        raise ConfigurationError(
            f"a worker computes by {arithmetic}, others by {task.arithmetic}: give all the same "
            "--device and the same software"
        )
    held = box.grow(forest.bank.halo_voxels).clip(density.shape)
    volume = np.asarray(density[held.slices].compute(scheduler="synchronous"))
    probabilities, n_continued = label(volume, held, box, forest, task.early_exit)
    return stored_labels(probabilities, soft=task.soft, classes=task.classes), n_continued


def stored_labels(
    probabilities: NDArray[np.float32], *, soft: bool, classes: Classes
) -> NDArray[np.uint8]:
    """Give the labels as they are stored.

    Parameters
    ----------
    probabilities
        ``(c, z, y, x)`` float32 as `otzi.pseudo_labels` gives them; voxels of no class, those that
        see a NaN, become background.
    soft, classes
        As in `otzi_pipelines.label.pseudolabel.pseudolabel`.

    Returns
    -------
    NDArray
        ``(c, z, y, x)`` uint8 that sum to 255 over c, or the class ``(z, y, x)`` uint8.
    """
    probabilities = probabilities.copy()
    probabilities[0, ~probabilities.any(axis=0)] = 1
    if classes == "2":
        probabilities = np.stack([probabilities[0], probabilities[1:].sum(axis=0)])
    if soft:
        return quantise(probabilities, _WHOLE).astype(np.uint8)
    return np.asarray(probabilities.argmax(axis=0), np.uint8)


@lru_cache(maxsize=4)
def _density(collection: str, tomogram: str, sha256: str) -> Any:
    tomo = open_collection(collection)[tomogram]
    if tomo.digest("raw") != sha256:
        raise VerificationError(f"the raw of {tomogram} has changed meanwhile: run it again")
    return tomo.raw.data


@lru_cache(maxsize=2)
def _forest(folder: Path, sha256: str) -> StrokeForest:
    forest = load_forest(folder)
    if forest.sha256 != sha256:
        raise VerificationError(f"the forest in {folder} has changed meanwhile: run it again")
    return forest
