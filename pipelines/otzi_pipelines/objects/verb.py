"""Verb objects: connected voxels of a class, counted, measured and numbered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from otzi.arguments import (
    CollectionArgument,
    ExecutorOption,
    TomogramsArgument,
    chosen_tomograms,
    only_probs,
)
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import SOME_LEFT_OUT, NotFoundError, UsageError, VerificationError
from otzi.execute import executor as execute_on
from otzi.memory import parse_bytes
from otzi_pipelines.objects.block import Connectivity
from otzi_pipelines.objects.find import CSV, find_objects
from otzi_pipelines.objects.star import checked_star, save_star

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram

__all__ = ["command"]


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomograms: TomogramsArgument = None,
    *,
    classes: Annotated[
        list[str], typer.Option("--class", metavar="NAME", help="Of the voxels; may be repeated.")
    ],
    of: Annotated[
        str | None,
        typer.Option(
            "--of", metavar="PRODUCT", help="probs/NAME or labels/NAME; the only probabilities."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the objects; that of the classes if left out.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability from which on; the ramps' left limits, 0.5 without them."),
    ] = None,
    connectivity: Annotated[
        int, typer.Option(metavar="6|18|26", help="Neighbours of a voxel that belong to it.")
    ] = 26,
    min_volume_nm3: Annotated[float, typer.Option(help="Leave smaller objects out.", min=0)] = 0.0,
    labels: Annotated[
        bool, typer.Option("--labels", help="Publish the object of every voxel, too.")
    ] = False,
    star: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.star", help="Centroids of all objects as particles of RELION, too."
        ),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Not to be exceeded: 4GB, 512MiB.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads or processes; one for each core.", min=1)
    ] = None,
    executor: ExecutorOption = "local",
) -> int:
    """Count and measure connected objects of a class, and number their voxels.

    Of several tomograms, one whose objects cannot be had is left out, and the others go on.
    """
    memory_bytes = None if memory is None else parse_bytes(memory)
    neighbours = _connectivity(connectivity)
    if star is not None:
        checked_star(star)
    chosen = chosen_tomograms(open_collection(collection, mode="r+"), tomograms)
    named = name or "_".join(classes)
    results: dict[str, dict[str, Any]] = {}
    with execute_on(executor, workers) as running:
        for tomo in chosen:
            try:
                made = find_objects(
                    tomo,
                    named,
                    of=of or _only_product(tomo),
                    classes=classes,
                    threshold=threshold,
                    connectivity=neighbours,
                    min_volume_nm3=min_volume_nm3,
                    with_labels=labels,
                    workers=workers,
                    executor=running,
                    memory_bytes=memory_bytes,
                    listen=console,
                )
            except (UsageError, VerificationError) as error:
                if len(chosen) == 1:
                    raise
                console.warn(f"{tomo.id} is left out: {error}")
                results[tomo.id] = {"made": False, "error": str(error)}
                continue
            results[tomo.id] = _result(tomo, f"objects/{named}") | {"made": made}
    there = [tomo for tomo in chosen if "error" not in results[tomo.id]]
    if star is not None:
        save_star(there, f"objects/{named}", star)
    console.result(results, "\n".join(_line(id_, result) for id_, result in results.items()))
    return SOME_LEFT_OUT if len(there) < len(chosen) else 0


def _connectivity(number: int) -> Connectivity:
    known: tuple[Connectivity, ...] = get_args(Connectivity)
    if number in known:
        return known[known.index(number)]
    raise UsageError(f"--connectivity {number}: 6 (faces), 18 (edges, too) or 26 (corners, too)")


def _only_product(tomo: Tomogram) -> str:
    name = only_probs(tomo)
    if name is None:
        raise NotFoundError(
            f"{tomo.id} has no probabilities: name labels by --of labels/NAME, or run "
            f"`otzi segment {tomo.collection.path} {tomo.id} --model DIR --name NAME`"
        )
    return f"probs/{name}"


def _result(tomo: Tomogram, product: str) -> dict[str, Any]:
    attributes, path = tomo.attributes(product), tomo.path(product)
    return {
        "path": str(path),
        "table": str(path / CSV),
        "of": attributes["recipe"]["of"],
        "thresholds": attributes["recipe"]["thresholds"],
        "counts": attributes["counts"],
    }


def _line(id_: str, result: dict[str, Any]) -> str:
    if "error" in result:
        return f"{id_}: left out"
    thresholds = result["thresholds"] or [None] * len(result["counts"])
    lines = [f"{id_}: {result['table']}"]
    for (name, counts), threshold in zip(result["counts"].items(), thresholds, strict=True):
        above = "" if threshold is None else f" from {threshold:.3g} on"
        n = counts["objects"]
        lines.append(
            f"  {name}{above}: {n:,} object{'s' * (n != 1)}, {counts['volume_nm3']:,.0f} nm³ in "
            f"all, {counts['largest_nm3']:,.0f} the largest"
        )
    return "\n".join(lines)
