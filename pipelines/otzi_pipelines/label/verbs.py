"""Verbs strokes, pseudolabel and suggest: what a person drew, what follows from it, what next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otzi.arguments import CollectionArgument, ExecutorOption, TomogramArgument
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import SOME_LEFT_OUT, NotFoundError, UsageError, VerificationError
from otzi.execute import executor as execute_on
from otzi.memory import parse_bytes
from otzi.networks.weights import Device
from otzi.pseudo.bank import FEATURES, SCALES, FeatureBank
from otzi.pseudo.forest import checked_early_exit
from otzi_pipelines.label.block import Classes
from otzi_pipelines.label.picture import checked_picture, save_picture
from otzi_pipelines.label.pseudolabel import pseudolabel
from otzi_pipelines.label.report import RunReport, forest_text
from otzi_pipelines.label.stroke_import import import_strokes
from otzi_pipelines.label.suggest import suggest_slices
from otzi_pipelines.label.uncertainty import publish_uncertainty, uncertainty_product

if TYPE_CHECKING:
    from otzi.collection import Collection
    from otzi.pseudo.forest import EarlyExit
    from otzi.tomogram import Tomogram

__all__ = ["pseudolabel_verb", "strokes_verb", "suggest_verb"]

_ID = "{tomogram}"


@verb
def strokes_verb(
    console: Console,
    collection: CollectionArgument,
    tomogram: TomogramArgument,
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON, napari CSV, ilastik project; or labels as MRC, TIFF, Zarr, 0 = unlabelled."
        ),
    ],
    *,
    append: Annotated[bool, typer.Option("--append", help="Add to those there are.")] = False,
) -> None:
    """Import strokes: the voxels of which a person has said the class."""
    tomo = open_collection(collection, mode="r+")[tomogram]
    made = import_strokes(tomo, file, append=append, listen=console)
    counts = tomo.attributes("strokes")["n_voxels"]
    listed = ", ".join(f"{name} {n:,}" for name, n in counts.items())
    document = {"tomogram": tomo.id, "made": made, "voxels": counts}
    console.result(document, f"{tomo.id}: {sum(counts.values()):,} voxels: {listed}")


@verb
def pseudolabel_verb(
    console: Console,
    collection: CollectionArgument,
    tomograms: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOMO]...", help="Tomograms; all that have strokes."),
    ] = None,
    *,
    name: Annotated[str, typer.Option(help="Of the labels.")],
    soft: Annotated[bool, typer.Option("--soft/--hard", help="Probabilities, or a class.")] = True,
    classes: Annotated[Classes, typer.Option(help="2: foreground is all but background.")] = "all",
    features: Annotated[
        str, typer.Option(help=f"All, or, with commas: {', '.join(FEATURES)}.")
    ] = "all",
    scales: Annotated[
        str, typer.Option(help=f"All, or, with commas: {', '.join(map(str, SCALES))}.")
    ] = "all",
    trees: Annotated[int, typer.Option(help="In the forest.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="The same seed, the same forest.", min=0)] = 0,
    early_exit: Annotated[
        str | None,
        typer.Option(
            metavar="TREES,VOTES",
            help="Faster and inexact, as 20,0.95: no more trees once a class has such votes.",
        ),
    ] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Publish labels/NAME_uncertainty, too.")
    ] = False,
    picture: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png",
            help="Three slices to look at; {tomogram} in it stands for the tomogram's id.",
        ),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Not to be exceeded: 4GB, 512MiB.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads or processes; one for each core.", min=1)
    ] = None,
    executor: ExecutorOption = "local",
    device: Annotated[Device, typer.Option(help="Where blocks are labelled.")] = "cpu",
) -> int:
    """Turn strokes into dense labels, by features and a forest for each tomogram.

    Of several tomograms, one that cannot be labelled is left out, and the others go on.
    """
    memory_bytes = None if memory is None else parse_bytes(memory)
    bank, stop = _bank(features, scales), _early_exit(early_exit)
    if uncertainty and not soft:
        raise UsageError("--uncertainty with --hard: only soft labels say how sure they are")
    chosen = _chosen(open_collection(collection, mode="r+"), tomograms)
    pictures = {} if picture is None else _pictures(picture, chosen)
    results: dict[str, dict[str, Any]] = {}
    with execute_on(executor, workers) as running:
        for tomo in chosen:
            report = RunReport(console)
            try:
                made = pseudolabel(
                    tomo,
                    name,
                    bank=bank,
                    soft=soft,
                    classes=classes,
                    n_trees=trees,
                    seed=seed,
                    early_exit=stop,
                    workers=workers,
                    executor=running,
                    device=device,
                    memory_bytes=memory_bytes,
                    listen=report,
                )
                result: dict[str, Any] = {"made": made, "path": str(tomo.path(f"labels/{name}"))}
                result["forest"] = forest = tomo.attributes(f"labels/{name}")["forest"]
                if made:
                    console.say(f"{tomo.id}: {report}\n{forest_text(forest)}")
                    result["run"] = report.to_json()
                if uncertainty:
                    publish_uncertainty(tomo, name, console)
                    result["uncertainty"] = str(tomo.path(uncertainty_product(name)))
                if picture is not None:
                    save_picture(tomo, name, pictures[tomo.id])
                    result["picture"] = str(pictures[tomo.id])
            except (UsageError, VerificationError) as error:
                if len(chosen) == 1:
                    raise
                console.warn(f"{tomo.id} is left out: {error}")
                result = {"made": False, "error": str(error)}
            results[tomo.id] = result
    lines = [f"{id_}: {result.get('path', 'left out')}" for id_, result in results.items()]
    console.result(results, "\n".join(lines))
    return SOME_LEFT_OUT if any("error" in result for result in results.values()) else 0


@verb
def suggest_verb(
    console: Console,
    collection: CollectionArgument,
    tomogram: TomogramArgument,
    *,
    labels: Annotated[str, typer.Option(metavar="NAME", help="Soft labels, labels/NAME.")],
    n: Annotated[int, typer.Option("-n", help="How many slices, at most.", min=1)] = 5,
) -> None:
    """Name the slices whose labelling would help most: unsure ones, away from all strokes."""
    found = suggest_slices(open_collection(collection)[tomogram], labels, n)
    if not found:
        console.say(f"{tomogram}: labels/{labels} are sure of every slice without strokes")
    lines = []
    for slice_ in found:
        spots = "; ".join(f"{s.y}, {s.x} ({s.uncertainty:.0%})" for s in slice_.hot_spots)
        lines.append(f"z {slice_.z:4}  unsure {slice_.uncertainty:4.0%}  most at y, x: {spots}")
    document = {"tomogram": tomogram, "labels": labels, "slices": [s.to_json() for s in found]}
    console.result(document, "\n".join(lines))


def _pictures(picture: str, tomograms: list[Tomogram]) -> dict[str, Path]:
    """Give the file of the picture of each tomogram, before any work."""
    if len(tomograms) > 1 and _ID not in picture:
        raise UsageError(
            f"--picture {picture} for {len(tomograms)} tomograms: write {_ID} where the id goes"
        )
    return {tomo.id: checked_picture(Path(picture.replace(_ID, tomo.id))) for tomo in tomograms}


def _chosen(collection: Collection, ids: list[str] | None) -> list[Tomogram]:
    tomograms = [collection[id_] for id_ in ids or collection.ids]
    if not ids:
        tomograms = [tomo for tomo in tomograms if tomo.has("strokes")]
    if not tomograms:
        raise NotFoundError(
            f"no tomogram of {collection.path} has strokes: import some with "
            f"`otzi strokes {collection.path} TOMO FILE`"
        )
    return tomograms


def _bank(features: str, scales: str) -> FeatureBank:
    try:
        sizes = SCALES if scales == "all" else tuple(float(text) for text in scales.split(","))
    except ValueError:
        listed = ",".join(map(str, SCALES))
        raise UsageError(f"--scales {scales}: write all, or some of {listed}") from None
    kinds = FEATURES if features == "all" else tuple(features.split(","))
    return FeatureBank(scales=sizes, features=kinds)


def _early_exit(text: str | None) -> EarlyExit | None:
    if text is None:
        return None
    trees, _, votes = text.partition(",")
    try:
        early_exit = (int(trees), float(votes))
    except ValueError:
        raise UsageError(f"--early-exit {text}: write trees and votes, as 20,0.95") from None
    return checked_early_exit(early_exit)
