"""A network from labelled tomograms: data, network, loop, model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otzi.errors import ConfigurationError
from otzi.events import Listener, Noted, ignore
from otzi.networks.weights import (
    Device,
    ModelCard,
    load_card,
    load_model,
    require_torch,
    save_model,
)
from otzi_pipelines.train.crops import class_names
from otzi_pipelines.train.data import roles, training_data, warn_of_seen
from otzi_pipelines.train.folder import BEST, CHECKPOINT, finished, made_from, refuse_other
from otzi_pipelines.train.processes import is_first, together
from otzi_pipelines.train.settings import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otzi.collection import Collection

__all__ = ["train"]


def train(
    collection: Collection,
    *,
    labels: str,
    model: Path,
    tomograms: Sequence[str] | None = None,
    settings: TrainSettings | None = None,
    start: Path | None = None,
    device: Device = "auto",
    threads: int | None = None,
    listen: Listener = ignore,
) -> ModelCard:
    """Give the card of a network trained on the tomograms that have these labels.

    Tomograms that the split of the collection keeps for validation or test are never learnt from. A
    run that was interrupted goes on from its last checkpoint; on a processor, with as many threads,
    it ends in the same bits. A run that is finished is not repeated. Under ``torchrun`` the
    processes share each batch, and the first one alone writes.

    Parameters
    ----------
    collection
        Where the tomograms are.
    labels
        Name of the labels, soft or hard.
    model
        The model folder to make. It also gets a model in ``best``, that of the least held-out loss,
        pictures of what the network finds in ``pictures``, and curves in ``tensorboard``, where
        that is installed.
    tomograms
        Ids of the only ones to take; all that have labels if None.
    settings
        What decides the result.
    start
        A model folder or published checkpoint to start from; its network is taken, with a new last
        layer if the classes differ.
    device, threads
        Where, and on how many processor threads.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If no tomogram has such labels, one that is named has not, or none of those to learn from.
    UsageError
        If one that is named is kept for the test, or has no part in the split.
    CannotCreate
        If the folder holds something else, or a model trained otherwise.
    ConfigurationError
        If settings, labels and network do not fit together.
    MemoryBudgetError
        If a step does not fit into memory.
    ModelError
        If the loss is no number any more, the checkpoint is damaged, or `start` is no model.
    """
    settings = settings or TrainSettings()
    if not is_first():
        listen = ignore
    chosen = roles(collection, labels, listen, tomograms)
    made = made_from(chosen, labels, settings, start)
    place = model / CHECKPOINT
    if card := finished(model, made):
        if is_first():
            place.unlink(missing_ok=True)
        listen(Noted(f"{model} is done already"))
        return card
    require_torch()
    import torch

    from otzi.tiles.infer import choose_device
    from otzi_pipelines.train.checkpoint import Checkpoint
    from otzi_pipelines.train.learner import Learner
    from otzi_pipelines.train.loop import Loop
    from otzi_pipelines.train.network import first_network, network_config

    if threads:
        torch.set_num_threads(threads)
    earlier = Checkpoint.read(place) if place.exists() else None
    if earlier:
        refuse_other(model, earlier.notes["made"], made)

    # Network and data
    origin = None if start is None else load_model(start, device="cpu")
    if origin:
        warn_of_seen(collection, origin.card.training, listen)
    n_classes = len(class_names(chosen.tomograms[0], labels))
    config = network_config(settings, n_classes, origin.network.config if origin else None)
    data = training_data(chosen, labels, settings, listen, config.density_normalisation)
    network = first_network(config, settings.seed, data.classes, origin)

    with together(choose_device(device)) as (team, own_device):
        if settings.batch % team.size:
            raise ConfigurationError(
                f"batch = {settings.batch} must be a multiple of the {team.size} processes"
            )
        loop = Loop(
            folder=model,
            settings=settings,
            data=data,
            learner=Learner(network, settings, own_device, team, listen),
            made=made,
            spacing_angstrom=chosen.tomograms[0].spacing_angstrom,
            table=collection.classes,
            listen=listen,
        )
        if earlier:
            loop.take_up(earlier)
            listen(Noted(f"goes on after step {loop.done}"))
        is_early = loop.run()
        if is_first():
            if is_early:
                best = load_model(model / BEST, device="cpu")
                listen(Noted(f"ended at step {loop.done}, best was {best.card.metrics['step']}"))
                save_model(model, best.network, best.card)
            else:
                save_model(model, loop.learner.judged, loop.card())
            place.unlink(missing_ok=True)
        team.gather(None)  # nobody reads the card before it is written
    return load_card(model)
