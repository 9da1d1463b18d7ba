"""The folder of a model that is being trained: what is in it, and that it is for one training."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from otzi.errors import CannotCreate, disk_errors
from otzi.files import sha256_of_file
from otzi.networks.weights import CARD_FILE, WEIGHTS_FILE, ModelCard, load_card
from otzi_pipelines.train.settings import TrainSettings

if TYPE_CHECKING:
    from pathlib import Path

    from otzi_pipelines.train.data import Roles

__all__ = ["BEST", "BOARD", "CHECKPOINT", "PICTURES", "finished", "made_from", "refuse_other"]

CHECKPOINT = "checkpoint"
BEST, PICTURES, BOARD = "best", "pictures", "tensorboard"
"""Folders: the model with the least held-out loss so far, pictures and curves of validations."""


def made_from(
    roles: Roles, labels: str, settings: TrainSettings, start: Path | None
) -> dict[str, Any]:
    """Give what decides the result, as plain JSON: two runs that agree in it are the same."""
    decisive = asdict(settings)
    del decisive["checkpoint_every"]
    made = {
        "labels": labels,
        "tomograms": [
            {"id": t.id, "raw": t.digest("raw"), "labels": t.digest(f"labels/{labels}")}
            for t in roles.tomograms
        ],
        "judged_by": [tomo.id for tomo in roles.judged_by],
        "start": None if start is None else _identity(start),
        "settings": decisive,
    }
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def finished(model: Path, made: dict[str, Any]) -> ModelCard | None:
    """Give the card of the model if it is done, and see to it that it may be made otherwise.

    Raises
    ------
    CannotCreate
        If the folder holds something else, or a model trained otherwise.
    """
    if (model / CARD_FILE).exists():
        card = load_card(model)
        refuse_other(model, card.training, made)
        return card
    if model.exists() and not model.is_dir():
        raise CannotCreate(f"{model} is a file: choose a new folder")
    if model.exists() and not (model / CHECKPOINT).exists():
        with disk_errors(model, "reading"):
            others = {path.name for path in model.iterdir() if path.suffix != ".partial"}
        # What a run leaves that is killed before its first checkpoint, or just before the end.
        if others := others - {WEIGHTS_FILE, BEST, PICTURES, BOARD}:
            raise CannotCreate(
                f"{model} is there and holds no model, but {min(others)}: choose a new folder"
            )
    return None


def refuse_other(model: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Check that a model was made as is wanted now.

    Raises
    ------
    CannotCreate
        If it was not; the message names the first difference.
    """
    # A setting that did not exist then had what is its default now.
    defaults: dict[str, Any] = json.loads(json.dumps(asdict(TrainSettings())))
    before = {"judged_by": []} | defaults | _flat(found)
    for key, value in _flat(wanted).items():
        if before.get(key) != value:
            raise CannotCreate(
                f"{model} was trained with {key} = {_short(before.get(key))}, now it is "
                f"{_short(value)}: choose another --model"
            )


def _identity(start: Path) -> str:
    """Give the SHA-256 of the weights of a model folder, or of a published checkpoint."""
    return sha256_of_file(start) if start.suffix == ".ckpt" else load_card(start).sha256


def _flat(made: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = made.get("settings", {})
    return {key: value for key, value in made.items() if key != "settings"} | settings


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
