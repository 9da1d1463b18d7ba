"""Verb evaluate: probabilities or labels against a truth, over whole volumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otzi.arguments import CollectionArgument, chosen_tomograms
from otzi.box import Box
from otzi.classes import ClassTable
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import NotFoundError, UsageError
from otzi.events import Listener, ignore, step
from otzi.memory import parse_bytes
from otzi.split import Part, read_split
from otzi_pipelines.evaluate.boundary import boundary_distances
from otzi_pipelines.evaluate.picture import save_reliability
from otzi_pipelines.evaluate.report import DEFINITIONS, Evaluation, pooled
from otzi_pipelines.evaluate.segmentation import comparable, full_name
from otzi_pipelines.evaluate.temperature import Calibration, calibrate, card_of_maker
from otzi_pipelines.evaluate.whole_volume import agreement_of
from otzi_pipelines.label.picture import checked_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.collection import Collection
    from otzi.tomogram import Tomogram
    from otzi_pipelines.evaluate.segmentation import Segmentation

__all__ = ["command", "evaluate"]


def evaluate(
    prediction: Segmentation,
    truth: Segmentation,
    *,
    boundary_memory_bytes: int | None = None,
    workers: int | None = None,
    listen: Listener = ignore,
) -> Evaluation:
    """Give how well a segmentation agrees with another, which is taken for the truth.

    Parameters
    ----------
    prediction, truth
        From `comparable`.
    boundary_memory_bytes
        What the process may take for the distance of boundaries; None: they are left out.
    workers
        Blocks at the same time; one for each core if None.
    listen
        Told of the progress.

    Raises
    ------
    UsageError
        If there is no voxel of which both say something.
    MemoryBudgetError
        If not even the coarsest level of the boundaries fits into the memory.
    """
    agreement = agreement_of(prediction, truth, workers=workers, listen=listen)
    if not agreement.n_voxels:
        raise UsageError(
            f"{prediction.product} and {truth.product} of {prediction.tomo.id} share no labelled "
            "voxel: name a truth that labels some"
        )
    level, boundaries = None, None
    if boundary_memory_bytes is not None:
        with step(listen, f"boundaries of {prediction.tomo.id}"):
            level, boundaries = boundary_distances(prediction, truth, boundary_memory_bytes)
    return Evaluation(
        prediction.classes,
        agreement,
        Box.whole(prediction.shape).n_voxels,
        prediction.is_soft,
        boundaries,
        level,
    )


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomograms: Annotated[
        list[str] | None, typer.Argument(metavar="[TOMO]...", help="Tomograms; all that have both.")
    ] = None,
    *,
    part: Annotated[
        Part | None, typer.Option(help="Of the tomograms, those in this part of the split.")
    ] = None,
    probs: Annotated[str, typer.Option(help="What is judged: probs/NAME, or as labels/NAME.")],
    truth: Annotated[str, typer.Option(help="By what: labels/NAME, or as probs/NAME.")],
    boundary: Annotated[
        bool, typer.Option("--boundary", help="Distance of boundaries, too, in ångström.")
    ] = False,
    memory: Annotated[
        str, typer.Option(help="For boundaries: the finest level that fits is taken.")
    ] = "4GB",
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Reliability diagram, of all together.")
    ] = None,
    fit_temperature: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="The model that made these probabilities: calibrate it by the truth, and store "
            "the temperature in its card.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Blocks at the same time.", min=1)] = None,
) -> None:
    """Judge a segmentation by a truth: Dice, F1, cross-entropy, calibration, boundaries."""
    prediction, reference = full_name(probs, "probs"), full_name(truth, "labels")
    memory_bytes = parse_bytes(memory) if boundary else None
    col = open_collection(collection)
    chosen = _chosen(col, tomograms, prediction, reference)
    if part is not None:
        chosen = _in_part(col, chosen, part)
    pairs = _pairs(chosen, prediction, reference)
    predictions = [first for first, _ in pairs]
    if picture is not None:
        _check_picture(picture, predictions)
    card = None if fit_temperature is None else card_of_maker(fit_temperature, predictions)
    found = {
        first.tomo.id: evaluate(
            first, second, boundary_memory_bytes=memory_bytes, workers=workers, listen=console
        )
        for first, second in pairs
    }
    total = pooled(tuple(found.values()))
    calibration: Calibration | None = None
    if fit_temperature is not None and card is not None:
        calibration = calibrate(pairs, total, card, workers=workers, listen=console)
        calibration.store(fit_temperature, list(found), reference)
    if picture is not None:
        table = col.classes.having(total.classes) or ClassTable.named(total.classes)
        shown = {"as stored": total}
        if calibration:
            shown[f"at temperature {calibration.temperature:.3g}"] = calibration.after
        save_reliability(shown, table, picture)
    if console.verbosity > 0:
        console.say("\n".join(f"{name}: {text}" for name, text in DEFINITIONS.items()))
    document = {
        "prediction": prediction,
        "truth": reference,
        "classes": list(total.classes),
        "definitions": DEFINITIONS,
        "tomograms": {id_: one.to_json() for id_, one in found.items()},
        "pooled": total.to_json(),
    }
    parts = [f"{id_}\n{one.to_text()}" for id_, one in found.items()]
    if len(found) > 1:
        parts.append(f"all {len(found)} tomograms\n{total.to_text()}")
    if calibration:
        document["calibration"] = {"model": str(fit_temperature)} | calibration.to_json()
        parts.append(calibration.to_text())
    console.result(document, "\n\n".join(parts))


def _chosen(
    collection: Collection, ids: list[str] | None, prediction: str, truth: str
) -> list[Tomogram]:
    """Give the tomograms with these ids; without ids, all that have both products."""
    chosen = chosen_tomograms(collection, ids)
    if ids:
        return chosen
    both = [tomo for tomo in chosen if tomo.has(prediction) and tomo.has(truth)]
    if not both:
        there = sorted({product for tomo in chosen for product in tomo.products})
        raise NotFoundError(
            f"no tomogram of {collection.path} has both {prediction} and {truth}: there are "
            f"{', '.join(there)}"
        )
    return both


def _in_part(collection: Collection, tomograms: list[Tomogram], part: Part) -> list[Tomogram]:
    split = read_split(collection)
    inside = [tomo for tomo in tomograms if split and split.parts.get(tomo.id) == part]
    if not inside:
        raise NotFoundError(
            f"--part {part}: none of {', '.join(tomo.id for tomo in tomograms)} is in it; see "
            f"`otzi split {collection.path}`"
        )
    return inside


def _pairs(
    tomograms: Sequence[Tomogram], prediction: str, truth: str
) -> list[tuple[Segmentation, Segmentation]]:
    """Give what is compared, all of it seen as the same classes."""
    pairs = [comparable(tomo, prediction, truth) for tomo in tomograms]
    first, _ = pairs[0]
    for other, _ in pairs[1:]:
        if (other.classes, other.is_soft) != (first.classes, first.is_soft):
            raise UsageError(
                f"{prediction} of {other.tomo.id} is {_described(other)}, of {first.tomo.id} "
                f"{_described(first)}: name tomograms that are alike"
            )
    return pairs


def _described(segmentation: Segmentation) -> str:
    kind = "soft" if segmentation.is_soft else "hard"
    return f"{kind} with classes {', '.join(segmentation.classes)}"


def _check_picture(file: Path, predictions: Sequence[Segmentation]) -> None:
    checked_picture(file)
    if not predictions[0].is_soft:
        raise UsageError(
            f"--picture {file}: {predictions[0].product} is hard, and hard labels do not say how "
            "sure they are; name soft ones"
        )
