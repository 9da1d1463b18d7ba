"""The temperature of a model, fitted to what it said of tomograms whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from otzi.errors import UsageError
from otzi.events import Listener, Warned, ignore
from otzi.metrics import Agreement
from otzi.networks.weights import load_card, write_card
from otzi.temperature import TemperatureFit
from otzi_pipelines.evaluate.whole_volume import agreement_of, summed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otzi.networks.weights import ModelCard
    from otzi_pipelines.evaluate.report import Evaluation
    from otzi_pipelines.evaluate.segmentation import Segmentation

__all__ = ["Calibration", "calibrate", "card_of_maker", "fitted_temperature"]


def card_of_maker(model: Path, predictions: Sequence[Segmentation]) -> ModelCard:
    """Give the card of the model that made these probabilities.

    Raises
    ------
    NotFoundError, ModelError
        If there is no such model folder.
    UsageError
        If another model made them, or the same at another temperature.
    """
    card = load_card(model)
    for prediction in predictions:
        name = f"{prediction.product} of {prediction.tomo.id}"
        made_by = prediction.tomo.attributes(prediction.product).get("recipe", {}).get("model")
        if made_by != card.digest or prediction.classes != card.classes:
            raise UsageError(
                f"{name} was not made by {model} as it is now: make it with `otzi segment --model "
                f"{model}`, and evaluate that"
            )
    return card


def fitted_temperature(
    pairs: Sequence[tuple[Segmentation, Segmentation]],
    *,
    workers: int | None = None,
    listen: Listener = ignore,
) -> float:
    """Give by how much probabilities are to be tempered, for the least cross-entropy with a truth.

    Fitted to probabilities as stored: those kept as uint8 lose what is below 1/510, by which the
    temperature is a few percent off; `otzi segment --dtype float32` keeps it.

    Parameters
    ----------
    pairs
        Predictions and truths, from `comparable`.
    workers
        Blocks at the same time; one for each core if None. The sums are the same to the bit.
    listen
        Told of the progress.

    Raises
    ------
    UsageError
        If nothing is known of any voxel, or no temperature is the best.
    """
    total = TemperatureFit.none()
    for prediction, truth in pairs:
        total = summed(
            TemperatureFit.measure,
            total,
            prediction,
            truth,
            name=f"temperature of {prediction.tomo.id}",
            workers=workers,
            listen=listen,
        )
    return total.best()


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a temperature does to probabilities."""

    temperature: float
    """Of the model, from now on."""
    before: Evaluation
    """Of the probabilities as they are stored."""
    after: Evaluation
    """Of the same, tempered."""

    def store(self, model: Path, tomograms: Sequence[str], truth: str) -> None:
        """Write the temperature, and what it was fitted to, into the card of a model.

        Raises
        ------
        OutOfSpace, AccessDenied
            If it cannot be written; the card stays as it was.
        """
        card = load_card(model)
        fitted = {"tomograms": list(tomograms), "truth": truth} | self.to_json()
        write_card(
            model if model.is_dir() else model.parent,
            replace(
                card, temperature=self.temperature, metrics=card.metrics | {"calibration": fitted}
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Give the temperature, and both errors before and after, as plain JSON."""
        keys = ("cross_entropy", "calibration_error")
        sides = {"before": self.before.to_json(), "after": self.after.to_json()}
        return {"temperature": self.temperature} | {
            side: {key: found[key] for key in keys} for side, found in sides.items()
        }

    def to_text(self) -> str:
        """Give the same as a line for people."""
        before, after = self.before.agreement, self.after.agreement
        return (
            f"temperature {self.temperature:.3f}: cross-entropy {before.cross_entropy:.4f} -> "
            f"{after.cross_entropy:.4f} nats, calibration error {before.calibration_error:.4f} -> "
            f"{after.calibration_error:.4f}"
        )


def calibrate(
    pairs: Sequence[tuple[Segmentation, Segmentation]],
    before: Evaluation,
    card: ModelCard,
    *,
    workers: int | None = None,
    listen: Listener = ignore,
) -> Calibration:
    """Give the best temperature of a model, and what it does.

    Parameters
    ----------
    pairs, workers, listen
        Those of `fitted_temperature`.
    before
        The evaluation of all pairs, as they are stored.
    card
        Of the model that made the probabilities.

    Raises
    ------
    UsageError
        If no temperature is the best.
    """
    _warn_of_what_was_learnt(card, [prediction.tomo.id for prediction, _ in pairs], listen)
    factor = fitted_temperature(pairs, workers=workers, listen=listen)
    agreement = Agreement.none(len(before.classes))
    for prediction, truth in pairs:
        seen = replace(prediction, temperature=factor)
        agreement += agreement_of(seen, truth, workers=workers, listen=listen)
    return Calibration(card.temperature * factor, before, replace(before, agreement=agreement))


def _warn_of_what_was_learnt(card: ModelCard, ids: Sequence[str], listen: Listener) -> None:
    seen = {tomogram["id"] for tomogram in card.training.get("tomograms", ())}
    learnt = [id_ for id_ in ids if id_ in seen.difference(card.training.get("judged_by", ()))]
    if learnt:
        listen(
            Warned(
                f"the model learnt from {', '.join(learnt)}, of which it is surer than of others: "
                "fit its temperature to tomograms that it did not learn from, --part val"
            )
        )
