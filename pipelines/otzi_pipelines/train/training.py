"""A network from labelled tomograms.

Reads downwards: data, network, loop, checkpoint, card.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from otzi.errors import CannotCreate, ModelError, NotFoundError, disk_errors
from otzi.events import Listener, Noted, ignore, step
from otzi.networks.weights import (
    CARD_FILE,
    WEIGHTS_FILE,
    Device,
    ModelCard,
    load_card,
    load_model,
    require_torch,
    save_model,
)
from otzi_pipelines.train.crops import batches
from otzi_pipelines.train.data import training_data
from otzi_pipelines.train.settings import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

__all__ = ["train"]

_CHECKPOINT = "checkpoint"


def train(
    collection: Collection,
    *,
    labels: str,
    model: Path,
    settings: TrainSettings | None = None,
    start: Path | None = None,
    device: Device = "auto",
    threads: int | None = None,
    listen: Listener = ignore,
) -> ModelCard:
    """Give the card of a network trained on all tomograms that have these labels.

    A run that was interrupted goes on from its last checkpoint; on a processor, with as many
    threads, it ends in the same bits. A run that is finished is not repeated.

    Parameters
    ----------
    collection
        Where the tomograms are.
    labels
        Name of the labels, soft or hard.
    model
        The model folder to make.
    settings
        What decides the result.
    start
        A model to start from; its network is taken, with a new head if the classes differ.
    device, threads
        Where, and on how many processor threads.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If no tomogram has such labels.
    CannotCreate
        If the folder holds something else, or a model trained otherwise.
    ConfigurationError
        If settings, labels and network do not fit together.
    ModelError
        If the loss is no number any more, the checkpoint is damaged, or `start` is no model.
    """
    settings = settings or TrainSettings()
    tomograms = [tomo for tomo in collection if tomo.has(f"labels/{labels}")]
    if not tomograms:
        raise NotFoundError(
            f"no tomogram of {collection.path} has labels/{labels}: make them with "
            f"`otzi pseudolabel {collection.path} TOMO --name {labels}`"
        )
    made = _made_from(tomograms, labels, settings, start)
    place = model / _CHECKPOINT
    if finished := _finished(model, made):
        place.unlink(missing_ok=True)
        listen(Noted(f"{model} is done already"))
        return finished
    require_torch()
    from otzi.networks.unet import UNet
    from otzi_pipelines.train.checkpoint import Checkpoint
    from otzi_pipelines.train.learner import Learner, network_config

    # Where an earlier run stopped
    earlier = Checkpoint.read(place) if place.exists() else None
    if earlier:
        _refuse_other(model, earlier.notes["made"], made)

    # Data
    data = training_data(tomograms, labels, settings, listen)

    # Network
    origin = None if start is None else load_model(start, device="cpu")
    begun: UNet | None = None
    if origin is not None:
        if not isinstance(origin.network, UNet):
            raise ModelError(f"{start} is a published network: start from one of otzi train")
        begun = origin.network
    config = network_config(settings, len(data.classes), begun.config if begun else None)
    learner = Learner(config, settings, device=device, threads=threads)
    if origin and begun:
        learner.start_from(begun, keep_head=origin.classes == data.classes)
    first, losses, history = 0, list[float](), list[dict[str, Any]]()
    if earlier:
        learner.take_up(earlier)
        first, losses, history = earlier.step, earlier.notes["losses"], earlier.notes["history"]
        listen(Noted(f"goes on after step {first}"))

    # Loop
    steps = range(first, settings.steps)
    with (
        step(listen, "train", len(steps), "steps") as work,
        closing(batches(data.source, steps, settings.batch)) as fed,
    ):
        for i, batch in zip(steps, fed, strict=True):
            losses.append(learner.learn(*batch, settings.rate(i)))
            if not isfinite(losses[-1]):
                raise ModelError(
                    f"the loss is {losses[-1]} after {i} steps: take a learning_rate below "
                    f"{settings.learning_rate}, and a new --model"
                )
            done = i + 1
            if done % settings.validate_every == 0 or done == settings.steps:
                agreement = learner.test(data.held_out_crops())
                history.append(
                    {"step": done, "training_loss": sum(losses) / len(losses)}
                    | agreement.summary(data.classes)
                )
                losses = []
                listen(
                    Noted(
                        f"step {done}: loss {history[-1]['training_loss']:.3f}, held out "
                        f"{agreement.cross_entropy:.3f}, macro Dice {agreement.macro_dice:.3f}"
                    )
                )
            # No random state is kept: crop i of a seed is a function of both.
            if done % settings.checkpoint_every == 0 and done < settings.steps:
                notes = {"made": made, "losses": losses, "history": history}
                learner.checkpoint(done, notes).write(place)
            work.advance()

    # Card
    card = save_model(
        model,
        learner.network,
        ModelCard(
            classes=data.classes,
            config=asdict(config),
            spacing_angstrom=tomograms[0].spacing_angstrom,
            training=made,
            metrics=history[-1] | {"history": history},
        ),
    )
    place.unlink(missing_ok=True)
    return card


def _made_from(
    tomograms: Sequence[Tomogram], labels: str, settings: TrainSettings, start: Path | None
) -> dict[str, Any]:
    """Give what decides the result, as plain JSON: two runs that agree in it are the same."""
    decisive = asdict(settings)
    del decisive["checkpoint_every"]
    made = {
        "labels": labels,
        "tomograms": [
            {"id": t.id, "raw": t.digest("raw"), "labels": t.digest(f"labels/{labels}")}
            for t in tomograms
        ],
        "start": None if start is None else load_card(start).sha256,
        "settings": decisive,
    }
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def _finished(model: Path, made: dict[str, Any]) -> ModelCard | None:
    """Give the card of the model if it is done, and see to it that it may be made otherwise."""
    if (model / CARD_FILE).exists():
        card = load_card(model)
        _refuse_other(model, card.training, made)
        return card
    if model.exists() and not model.is_dir():
        raise CannotCreate(f"{model} is a file: choose a new folder")
    if model.exists() and not (model / _CHECKPOINT).exists():
        with disk_errors(model, "reading"):
            others = {path.name for path in model.iterdir() if path.suffix != ".partial"}
        # Weights alone are what a run leaves that is killed just before the end.
        if others - {WEIGHTS_FILE}:
            raise CannotCreate(
                f"{model} is there and holds no model, but {min(others)}: choose a new folder"
            )
    return None


def _refuse_other(model: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    before = _flat(found)
    for key, value in _flat(wanted).items():
        if before.get(key) != value:
            raise CannotCreate(
                f"{model} was trained with {key} = {_short(before.get(key))}, now it is "
                f"{_short(value)}: choose another --model"
            )


def _flat(made: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = made.get("settings", {})
    return {key: value for key, value in made.items() if key != "settings"} | settings


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
