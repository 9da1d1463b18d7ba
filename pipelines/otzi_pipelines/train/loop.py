"""The loop of a training: steps, validations, checkpoints.

No random state is kept: crop i of a seed, and how it is changed, are functions of both.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.events import Listener, Noted, step
from otzi.networks.weights import ModelCard, save_model
from otzi_pipelines.train.augment import Change
from otzi_pipelines.train.batch import density_of, target_of
from otzi_pipelines.train.board import Board, board
from otzi_pipelines.train.feed import crops_of_steps
from otzi_pipelines.train.folder import BEST, BOARD, CHECKPOINT, PICTURES
from otzi_pipelines.train.picture import draw_validation, save_png
from otzi_pipelines.train.schedule import is_best, is_over, learning_rate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otzi.classes import ClassTable
    from otzi_pipelines.train.checkpoint import Checkpoint
    from otzi_pipelines.train.crops import Crop
    from otzi_pipelines.train.data import TrainingData
    from otzi_pipelines.train.learner import Learner
    from otzi_pipelines.train.picture import Row
    from otzi_pipelines.train.settings import TrainSettings

__all__ = ["Loop"]

_ROWS = 4
"""Crops in a picture, at most."""


@dataclass(slots=True)
class Loop:
    """A training under way; its first process writes, all others only compute."""

    folder: Path
    """Of the model."""
    settings: TrainSettings
    data: TrainingData
    learner: Learner
    made: dict[str, Any]
    """What decides the result, as plain JSON."""
    spacing_angstrom: tuple[float, float, float]
    table: ClassTable
    listen: Listener

    done: int = 0
    """Steps taken."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last validation."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Of the validations."""

    def take_up(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same training."""
        self.learner.take_up(checkpoint)
        self.done = checkpoint.step
        self.losses, self.history = (checkpoint.notes[key] for key in ("losses", "history"))

    def run(self) -> bool:
        """Take all steps that are left; tell whether it ended early, as nothing more was gained."""
        settings = self.settings
        steps = range(self.done, settings.steps)
        indices = [
            self.learner.team.share(range(i * settings.batch, (i + 1) * settings.batch))
            for i in steps
        ]
        with (
            step(self.listen, "train", len(steps), "steps") as work,
            board(None if self.learner.team.rank else self.folder / BOARD, self.done + 1) as shown,
            closing(crops_of_steps(self.data.source, indices)) as fed,
        ):
            for of_step, crops in zip(indices, fed, strict=True):
                changes = [Change.draw(settings, i) for i in of_step]
                self.losses.append(self.learner.learn(crops, changes, self._rate()))
                self.done += 1
                if self.done % settings.validate_every == 0 or self.done == settings.steps:
                    self._validate(shown)
                    if is_over(settings, self._held_out_losses()):
                        return True
                if self.done % settings.checkpoint_every == 0 and self.done < settings.steps:
                    self._save_checkpoint()
                work.advance()
        return False

    def card(self) -> ModelCard:
        """Give the card of the network as it was judged last."""
        config = self.learner.network.config
        return ModelCard(
            classes=self.data.classes,
            config=asdict(config),  # type: ignore[call-overload]
            spacing_angstrom=self.spacing_angstrom,
            training=self.made,
            metrics=self.history[-1] | {"history": self.history},
            architecture=config.architecture,
            normalisation=config.density_normalisation,
        )

    def _validate(self, shown: Board) -> None:
        learner, data = self.learner, self.data
        learner.settle(lambda: data.crops(data.learnt_from))
        judgement = learner.test(data.crops(learner.team.share(data.held_out)))
        entry = {
            "step": self.done,
            "training_loss": sum(self.losses) / len(self.losses),
            "held_out_loss": judgement.loss,
            "learning_rate": self._rate(),
        }
        self.losses = []
        self.history.append(entry | judgement.agreement.summary(data.classes))
        if learner.team.rank:
            return
        if is_best(self._held_out_losses()):
            save_model(self.folder / BEST, learner.judged, self.card())
        rows = [self._row(crop) for crop in data.crops(data.held_out[:_ROWS])]
        picture = draw_validation(rows, data.classes, self.table)
        save_png(picture, self.folder / PICTURES / f"step_{self.done:06d}.png")
        measures = {key: self.history[-1][key] for key in ("macro_dice", "cross_entropy")}
        shown.show(self.done, entry | measures, np.asarray(picture))
        self.listen(
            Noted(
                f"step {self.done}: loss {entry['training_loss']:.3f}, held out "
                f"{judgement.agreement.cross_entropy:.3f}, "
                f"macro Dice {judgement.agreement.macro_dice:.3f}"
            )
        )

    def _row(self, crop: Crop) -> Row:
        volumes = (
            density_of(crop, self.learner.device),
            target_of(crop, self.learner.device, hard=self.settings.targets == "hard"),
            self.learner.predict(crop),
        )
        density, target, probabilities = (
            volume[..., crop.box.shape[0] // 2, :, :].cpu().numpy() for volume in volumes
        )
        return density, target, probabilities

    def _save_checkpoint(self) -> None:
        if self.learner.team.rank:
            return
        notes = {"made": self.made, "losses": self.losses, "history": self.history}
        self.learner.checkpoint(self.done, notes).write(self.folder / CHECKPOINT)

    def _rate(self) -> float:
        return learning_rate(self.settings, self.done, self._held_out_losses())

    def _held_out_losses(self) -> Sequence[float | None]:
        return [entry["held_out_loss"] for entry in self.history]
