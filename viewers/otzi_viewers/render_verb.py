"""Verb render: pictures and movies of the classes of tomograms."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otzi.arguments import CollectionArgument, ExecutorOption, ProbsOption
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import (
    SOME_LEFT_OUT,
    NotFoundError,
    OtziError,
    UsageError,
)
from otzi.execute import executor as executor_of
from otzi.memory import parse_bytes
from otzi.networks.weights import Device
from otzi.settings import load_settings
from otzi_viewers.render.output import DIGEST, check_output
from otzi_viewers.render.scene import Output, Quality, Scene

if TYPE_CHECKING:
    from otzi.collection import Collection

__all__ = ["command"]

MAXIMUM_RAYS = 40_000_000
"""Without ``--slow``: some two minutes on two cores for a cell of 10 million voxels."""

_ID = "{tomogram}"


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text)
    if not match or not all(1 <= int(n) <= 16384 for n in match.groups()):
        raise UsageError(f"size {text!r}: write it as 960x720, at most 16384 each way")
    return int(match[1]), int(match[2])


def _check_work(output: Output, quality: Quality) -> None:
    """Refuse stills, and movies whose frames, take long."""
    width, height = output.size
    rays = width * height * quality.spp
    if rays > MAXIMUM_RAYS:
        raise UsageError(
            f"{width}x{height} pixels of {quality.spp} rays are {rays / 1e6:.0f} million rays, "
            f"more than {MAXIMUM_RAYS / 1e6:.0f} million: take a smaller --size or quality.spp, or "
            "pass --slow and wait"
        )


def _chosen(collection: Collection, pattern: str, output: Path) -> dict[Path, str]:
    """Give the tomograms that a pattern means, and where the picture of each goes."""
    if pattern in collection.ids:
        return {Path(str(output).replace(_ID, pattern)): pattern}
    ids = [id_ for id_ in collection.ids if fnmatchcase(id_, pattern)]
    if not ids:
        known = ", ".join(collection.ids[:5]) + (", …" if len(collection.ids) > 5 else "")
        raise NotFoundError(f"no tomogram of {collection.path} is {pattern}: it has {known}")
    if len(ids) > 1 and _ID not in str(output):
        raise UsageError(f"-o {output} for {len(ids)} tomograms: write {_ID} where the id goes")
    return {Path(str(output).replace(_ID, id_)): id_ for id_ in ids}


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomogram: Annotated[
        str, typer.Argument(metavar="TOMO", help="The tomogram's id; or a pattern: 'ts_*'.")
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A .png or .exr picture, or a .mp4 movie; {tomogram} in it stands for the id.",
        ),
    ],
    probs: ProbsOption = None,
    scene: Annotated[Path | None, typer.Option(help="Scene file (TOML).")] = None,
    size: Annotated[str | None, typer.Option(help="Width x height, such as 960x720.")] = None,
    turntable: Annotated[
        int | None, typer.Option(metavar="FRAMES", help="A whole turn in so many.", min=1)
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to draw; says which and why.")] = "auto",
    level: Annotated[
        int | None,
        typer.Option(help="Of the pyramid; the finest that fits into --memory if left out.", min=0),
    ] = None,
    memory: Annotated[
        str, typer.Option(help="For the volume; a --level that does not fit is streamed.")
    ] = "1GB",
    gpu_memory: Annotated[
        str | None, typer.Option(help="Of the GPU; most of what is free if left out.")
    ] = None,
    executor: ExecutorOption = "local",
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Write the still as it grows, ever less grainy.")
    ] = False,
    slow: Annotated[bool, typer.Option("--slow", help="Allow pictures that take long.")] = False,
) -> int:
    """Draw the classes of a tomogram, lit: a still or a movie."""
    check_output(output)
    if turntable and output.suffix.lower() != ".mp4":
        raise UsageError(f"--turntable makes a movie, {output} is a picture: name a .mp4 file")
    if snapshots and output.suffix.lower() == ".mp4":
        raise UsageError(f"--snapshots shows a still as it grows, {output} is a movie")
    from otzi_viewers.render.device import DrawingDevice, chosen_device
    from otzi_viewers.render.gallery import PictureRequest, render_requests
    from otzi_viewers.render.pictures import made_texts

    chosen = load_settings(Scene, scene) if scene else Scene()
    if size is not None:
        chosen = replace(chosen, output=replace(chosen.output, size=_size(size)))
    if turntable is not None:
        movie = replace(chosen.movie, frames=turntable, turn_degrees=360.0)
        chosen = replace(chosen, movie=movie)
    # Where others compute, theirs decides, and what is slow for a processor is too much for some.
    card = chosen_device(device)[0] if executor == "local" else None
    if not slow and card is None:
        _check_work(chosen.output, chosen.quality)
    where = DrawingDevice(device, parse_bytes(gpu_memory) if gpu_memory else None)
    requests = [
        PictureRequest(
            collection, id_, path, probs, chosen, level, parse_bytes(memory), snapshots, where
        )
        for path, id_ in _chosen(open_collection(collection), tomogram, output).items()
    ]
    results: dict[str, dict[str, Any]] = {}
    with executor_of(executor) as running:
        for request, made in render_requests(requests, running, console):
            id_, path = request.tomogram, request.output
            if isinstance(made, OtziError):
                if id_ == tomogram:
                    raise made
                console.warn(f"{id_} is left out: {made}")
                results[id_] = {"error": str(made)}
                continue
            if not made:
                console.say(f"{path} is done already")
            texts = made_texts(path)
            results[id_] = {
                "path": str(path),
                "size": list(chosen.output.size),
                "digest": texts[DIGEST],
                **json.loads(texts["otzi source"]),
            }
    results = {request.tomogram: results[request.tomogram] for request in requests}
    lines = [f"{result.get('path', 'left out')}" for result in results.values()]
    document = next(iter(results.values())) if tomogram in results else results
    console.result(document, "\n".join(lines))
    return SOME_LEFT_OUT if any("error" in result for result in results.values()) else 0
