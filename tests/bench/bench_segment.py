"""What segmentation takes beside the network: calls, wall and CPU time, memory, work done again.

A calibrated network stands in for a real one: it answers after a given time, whatever the machine
does besides. Every run is a process of its own, from sharded Zarr to published probabilities with
ramps and report; memory is the peak less what the process had before.

``bench_segment.py network`` measures the network with 16 features, too: CPU time of one tile.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from dask.order import order

from otzi.box import Box, tile
from otzi.collection import create_collection, open_collection
from otzi.memory import (
    format_bytes,
    give_back_freed_memory,
    peak_memory_bytes,
    resident_memory_bytes,
)
from otzi.networks.architectures import build, config_from_json
from otzi.networks.weights import ModelCard, load_model, save_model
from otzi.normalise import ROBUST
from otzi.tiles.batch import task_graph
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.infer import TorchModel
from otzi.tiles.plan import TilePlan
from otzi_pipelines.segment.segmentation import segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Zyx

CLASSES = ("background", "membrane", "spikes", "lumen")
REFERENCE: Zyx = (500, 1440, 1024)
WALL: Zyx = (224, 320, 416)
TILE_SECONDS = 4.0
MANY: Zyx = (224, 608, 608)
"""Enough tiles for what is done once for a volume, as its report, to weigh as it usually does."""
SHORT: Zyx = (128, 500, 320)
LONG: Zyx = (128, 1000, 320)
NETWORK_CPU_SECONDS = 4.2
"""Of the network with 16 features, a tile of 128³, torch 2.13, one thread of two AMD EPYC cores."""


class CalibratedModel(TorchModel):
    """Gives probabilities that follow the density, `seconds` after it was asked."""

    seconds = 0.0
    own_cpu_seconds = 0.0
    n_calls = 0
    _lock = threading.Lock()

    def __call__(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        began, cpu = time.monotonic(), time.thread_time()
        outputs = np.empty((len(tiles), len(CLASSES), *tiles.shape[2:]), np.float32)
        likely = np.clip(np.abs(tiles[:, 0]), 0, 1)
        for c, share in enumerate((0.1, 0.2, 0.7)):
            np.multiply(likely, np.float32(share), out=outputs[:, c])
        np.subtract(1, outputs[:, :3].sum(axis=1), out=outputs[:, 3])
        time.sleep(max(0.0, self.seconds - (time.monotonic() - began)))
        with self._lock:
            type(self).n_calls += len(tiles)
            type(self).own_cpu_seconds += time.thread_time() - cpu
        return outputs


def make_tomogram(folder: Path, shape: Zyx) -> None:
    tomo = create_collection(folder, CLASSES).add("ts_001")
    with tomo.write(
        "raw", dtype="float32", shape=shape, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        rng = np.random.default_rng(0)
        for box in tile(shape, (128, 128, 128)):
            writer[box.slices] = rng.normal(0, 1, box.shape).astype(np.float32)
        writer.attributes["statistics"] = {
            "mean": 0.0,
            "standard_deviation": 1.0,
            "percentiles": {"0.1": -3.1, "0.5": -2.6, "99.5": 2.6, "99.9": 3.1},
        }


def make_network(folder: Path, width: int) -> Path:
    config = config_from_json("residual-unet", {"n_classes": len(CLASSES), "width": width})
    network = build(config)
    network.initialise(torch.Generator().manual_seed(0))
    card = ModelCard(classes=CLASSES, config=asdict(config), spacing_angstrom=None)
    save_model(folder, network, card)
    return folder


def run(folder: Path, network: Path, workers: int, seconds: float) -> dict[str, float]:
    """Segment in this process and say what it took."""
    loaded = load_model(network, device="cpu", threads=1)
    model = CalibratedModel(loaded.network, loaded.card, loaded.path, device="cpu", threads=1)
    tomo = open_collection(folder, "r+")["ts_001"]
    # Kernels are loaded from the disk once in a process, whatever it does.
    segment(
        open_collection(folder.parent / "small", "r+")["ts_001"], model, name=f"warm{os.getpid()}"
    )
    CalibratedModel.seconds, CalibratedModel.n_calls = seconds, 0
    CalibratedModel.own_cpu_seconds = 0.0
    give_back_freed_memory()
    before, began, cpu = resident_memory_bytes(), time.monotonic(), cpu_seconds()
    segment(tomo, model, name=f"net{workers}", workers=workers)
    n_tiles = TilePlan(tomo.shape).n_tiles
    return {
        "calls": CalibratedModel.n_calls,
        "tiles": n_tiles,
        "wall": time.monotonic() - began,
        "host_cpu": (cpu_seconds() - cpu - CalibratedModel.own_cpu_seconds) / n_tiles,
        "memory": peak_memory_bytes() - before,
    }


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def in_process(*words: object) -> dict[str, Any]:
    command = [sys.executable, __file__, *map(str, words)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(found)
    return result


def graph_seconds(shape: Zyx) -> tuple[int, float]:
    """Give the number of tasks of a volume, and the time to build, order and send its graph."""
    blocks = BlockPlan(TilePlan(shape))
    began = time.perf_counter()
    graph = task_graph(read_zeros, Placeholder(), blocks, set(blocks.plan.tiles), "uint8", 1)
    needs = {key: set(task.dependencies) for key, task in graph.tasks.items()}
    order(dict(graph.tasks), needs)
    pickle.dumps(graph.tasks)
    return len(graph.tasks), time.perf_counter() - began


class Placeholder:
    """Stands in a graph that is not run."""

    classes = CLASSES
    n_measures = 0
    size_multiple = 1
    normalisation = ROBUST

    def __call__(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        raise NotImplementedError


def read_zeros(box: Box) -> NDArray[np.float32]:
    return np.zeros(box.shape, np.float32)


def network_cpu_seconds(network: Path) -> float:
    """Give the CPU time of a tile, one thread, the better of two."""
    model = load_model(network, device="cpu", threads=1)
    seen = np.random.default_rng(0).normal(0, 1, (1, 1, 128, 128, 128)).astype(np.float32)
    seconds = []
    for _ in range(2):
        began = cpu_seconds()
        model(seen)
        seconds.append(cpu_seconds() - began)
    return min(seconds)


def row(name: str, value: str, goal: str = "") -> None:
    print(f"  {name:<46}{value:>16}   {goal}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, shape in {
            "small": (16, 140, 140),
            "wall": WALL,
            "many": MANY,
            "short": SHORT,
            "long": LONG,
        }.items():
            make_tomogram(folder / name, shape)
        network = make_network(folder / "network", 2)
        print(
            f"segmentation beside a network that takes {TILE_SECONDS} s for a tile of 128³, {WALL}"
        )
        for workers in (1, 2):
            found = in_process(folder / "wall", network, workers, TILE_SECONDS)
            ideal = -(-found["tiles"] // workers) * TILE_SECONDS
            row(
                f"{workers} workers: calls / tiles",
                f"{found['calls'] / found['tiles']:.3f}",
                "1.000",
            )
            row("  wall / ideal", f"{found['wall'] / ideal:.3f}", f"<= {1 + 0.05 * workers:.2f}")
        host = in_process(folder / "many", network, 2, 0)["host_cpu"]
        row(f"CPU beside the network, a tile of {MANY}", f"{1e3 * host:.0f} ms")
        own = NETWORK_CPU_SECONDS
        if sys.argv[1:] == ["network"]:
            own = network_cpu_seconds(make_network(folder / "wide", 16))
            row("CPU of the network with 16 features, a tile", f"{own:.1f} s")
        row("  of it, beside the network", f"{host / own:.2%}", "<= 1 %")
        memory = {}
        for name, shape in (("short", SHORT), ("long", LONG)):
            memory[name] = in_process(folder / name, network, 2, 0)["memory"]
            row(f"memory, 2 workers, {shape}", format_bytes(memory[name]))
        row("  the long axis doubled", f"{memory['long'] / memory['short']:.2f}", "<= 1.15")
    n_tasks, seconds = graph_seconds(REFERENCE)
    row(f"graph of {REFERENCE}: build, order, pickle", f"{seconds:.2f} s", "<= 1 s")
    row("  for a task", f"{1e6 * seconds / n_tasks:.0f} us", "<= 60 us")


if __name__ == "__main__":
    if len(sys.argv) == 5:
        collection, weights, workers, seconds = sys.argv[1:]
        result = run(Path(collection), Path(weights), int(workers), float(seconds))
        json.dump(result, sys.stdout)
    else:
        main()
