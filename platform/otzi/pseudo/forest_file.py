"""A forest as a folder: ``forest.json`` says what it is, ``forest.npz`` holds its arrays.

Nothing in it is ever executed, and reading it needs no scikit-learn.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from otzi.errors import ModelError, NotFoundError, disk_errors
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import ForestTraining, StrokeForest

__all__ = ["load_forest", "save_forest"]

FORMAT = 1

_DTYPES: dict[str, np.dtype[Any]] = {
    "roots": np.dtype("<i4"),
    "child": np.dtype("<i4"),
    "channel": np.dtype("u1"),
    "threshold": np.dtype("<f4"),
    "shares": np.dtype("<f4"),
}
_DIMENSIONS = {"shares": 2}


def save_forest(forest: StrokeForest, folder: Path) -> None:
    """Write a forest into a folder, which is made; the same forest gives the same bytes.

    Raises
    ------
    OutOfSpace, AccessDenied, TemporaryFailure
        If it cannot be written.
    """
    document = {
        "format": FORMAT,
        "kind": "stroke forest",
        "classes": list(forest.classes),
        "channels": list(forest.bank.names),
        "bank": forest.bank.to_json(),
        "n_trees": len(forest.roots),
        "training": asdict(forest.training),
        "sha256": forest.sha256,
    }
    arrays = {name: getattr(forest, name).astype(dtype) for name, dtype in _DTYPES.items()}
    with disk_errors(folder, "writing"):
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "forest.npz", **arrays)
        (folder / "forest.json").write_text(json.dumps(document, indent=2) + "\n")


def load_forest(folder: str | Path) -> StrokeForest:
    """Give the forest of a folder.

    Raises
    ------
    NotFoundError
        If there is none.
    ModelError
        If it is of a later format, damaged, or learned channels that this otzi does not compute.
    """
    folder = Path(folder)
    if not (folder / "forest.json").is_file():
        raise NotFoundError(f"no forest in {folder}: `otzi pseudolabel` makes one")
    try:
        with disk_errors(folder, "reading"):
            document = json.loads((folder / "forest.json").read_text())
            arrays = _read_arrays(folder / "forest.npz")
        if document["format"] > FORMAT:
            raise ModelError(
                f"{folder} has format {document['format']}, this otzi reads up to {FORMAT}: "
                "update otzi"
            )
        bank = FeatureBank.from_json(document["bank"])
        if list(bank.names) != document["channels"]:
            raise ModelError(f"{folder} has learned channels that this otzi does not compute")
        training = dict(document["training"])
        training["n_voxels"] = tuple(training["n_voxels"])
        if training.get("oob_confusion") is not None:
            training["oob_confusion"] = tuple(map(tuple, training["oob_confusion"]))
        forest = StrokeForest(
            bank, tuple(document["classes"]), **arrays, training=ForestTraining(**training)
        )
        if forest.sha256 != document["sha256"]:
            raise ModelError(f"{folder} is damaged: its arrays are not those that were written")
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{folder} is no forest: {error!r}; train it again") from error
    return forest


def _read_arrays(path: Path) -> dict[str, Any]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, dtype in _DTYPES.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != _DIMENSIONS.get(name, 1):
            raise ModelError(f"{path}: {name} is {arrays[name].dtype} {arrays[name].shape}")
    return {name: arrays[name].astype(dtype.newbyteorder("=")) for name, dtype in _DTYPES.items()}
