"""Verb segment: class probabilities of tomograms."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otzi.arguments import (
    CollectionArgument,
    ExecutorOption,
    TomogramsArgument,
    chosen_tomograms,
)
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import SOME_LEFT_OUT, UsageError
from otzi.execute import checked_executor
from otzi.execute import executor as execute_on
from otzi.memory import parse_bytes, usable_cores
from otzi.networks.weights import Device, load_model
from otzi.tiles.blend import ProbabilityType
from otzi_pipelines.segment.several import segment_several

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.box import Zyx
    from otzi.execute import Executor
    from otzi.tiles.ensemble import Ensemble
    from otzi.tiles.infer import TorchModel

__all__ = ["command"]

_MOST_GPU_WORKERS = 4


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomograms: TomogramsArgument = None,
    *,
    model: Annotated[
        list[Path],
        typer.Option(
            help="A model folder, or a Nano-Ötzi .ckpt; of several the mean.", metavar="DIR|FILE"
        ),
    ],
    name: Annotated[str, typer.Option(help="Of the probabilities.")],
    tile: Annotated[int, typer.Option(help="Side of a tile in voxels.", min=1)] = 128,
    overlap: Annotated[int, typer.Option(help="Of neighbouring tiles, in voxels.", min=0)] = 32,
    flips: Annotated[
        int, typer.Option(help="Mirror images to average: 1, 4 (in y and x) or 8.", min=1)
    ] = 1,
    memory: Annotated[str | None, typer.Option(help="Not to be exceeded: 4GB, 512MiB.")] = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Tiles at the same time; a cluster's, once grown.", min=1)
    ] = None,
    executor: ExecutorOption = "local",
    volumes: Annotated[
        int, typer.Option(help="Tomograms at the same time, on a cluster.", min=1)
    ] = 1,
    block: Annotated[
        str, typer.Option(help="Tiles of a piece of work: z,y,x; or what suits the device.")
    ] = "auto",
    dtype: Annotated[ProbabilityType, typer.Option(help="As stored.")] = "uint8",
    view: Annotated[
        bool, typer.Option("--view/--no-view", help="Publish what the viewer reads, too.")
    ] = True,
    legacy: Annotated[
        bool, typer.Option("--legacy", help="Compare with the published way, in the report.")
    ] = False,
) -> int:
    """Segment tomograms with a network; a damaged one is left out, the others go on.

    Of several models or mirror images, spread/NAME tells how far they differ.
    """
    memory_bytes = None if memory is None else parse_bytes(memory)
    kind, _ = checked_executor(executor)
    tiles_per_block = _tiles_per_block(block)
    chosen = chosen_tomograms(open_collection(collection, mode="r+"), tomograms)
    processes = workers or _gpus(kind, device)
    where = nullcontext() if kind == "local" else execute_on(executor, processes)
    with where as running:
        network = _model(model, flips, device, _threads(kind, running, workers))
        results = segment_several(
            chosen,
            network,
            name=name,
            n_at_once=1 if running is None else volumes,
            listen=console,
            tile=tile,
            overlap=overlap,
            dtype=dtype,
            tiles_per_block=tiles_per_block,
            workers=workers or _workers(running, network),
            executor=running,
            memory_bytes=memory_bytes,
            with_view=view,
            with_legacy=legacy,
        )
    lines = [f"{id_}: {result.get('path', 'left out')}" for id_, result in results.items()]
    console.result(results, "\n".join(lines))
    return SOME_LEFT_OUT if any("error" in result for result in results.values()) else 0


def _model(
    paths: Sequence[Path], flips: int, device: Device, threads: int | None
) -> TorchModel | Ensemble:
    models = [load_model(path, device=device, threads=threads) for path in paths]
    from otzi.tiles.ensemble import ensemble_of

    return ensemble_of(models, flips)


def _threads(kind: str, running: Executor | None, workers: int | None) -> int | None:
    """Give the threads of one inference: cores are shared out, those of a cluster by itself."""
    cores = usable_cores()
    if running is None:
        return max(1, cores // (workers or cores))
    return max(1, cores // running.n_workers) if kind == "processes" else None


def _gpus(kind: str, device: Device) -> int | None:
    """Give the processes of this machine that there are by themselves: one for each GPU used."""
    if kind != "processes":
        return None
    import torch

    from otzi.tiles.infer import choose_device

    return torch.cuda.device_count() if choose_device(device).type == "cuda" else None


def _workers(running: Executor | None, network: TorchModel | Ensemble) -> int:
    """Give the tiles at the same time, where it is not said."""
    if running is not None:
        return running.n_workers
    # On a processor a tile for each core; a GPU takes one at a time, the others are read.
    cores = usable_cores()
    return cores if network.device.type == "cpu" else min(cores, _MOST_GPU_WORKERS)


def _tiles_per_block(text: str) -> Zyx | None:
    if text == "auto":
        return None
    try:
        z, y, x = map(int, text.split(","))
    except ValueError as error:
        raise UsageError(f"--block {text!r}: give tiles along z, y and x, as 5,2,2") from error
    return z, y, x
