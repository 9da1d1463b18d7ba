"""Tiled inference beside MONAI's: peak memory, and what it takes beside the network.

The same fake network for all, one thread, tiles of 128³ with an overlap of 32. MONAI has its volume
in memory and gives floats there, blended by a Gaussian, all at once or a slab at a time. Otzi does
the same from memory to memory, as floats and as bytes, and then what `otzi segment` does: it reads
sharded Zarr, and writes compressed probabilities with their pyramid. Every run is a process of its
own; memory is its peak less what it had before, with the volume where that is in memory. Overhead
is CPU time less that of the network alone.

``bench_monai.py Z Y X`` takes another shape than 250 × 720 × 512: at 500 × 1440 × 1024 MONAI needs
18 GB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box, tile
from otzi.collection import create_collection, open_collection
from otzi.memory import (
    format_bytes,
    give_back_freed_memory,
    peak_memory_bytes,
    resident_memory_bytes,
)
from otzi.normalise import ROBUST
from otzi.tiles.plan import TilePlan

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.tiles.blend import ProbabilityType

SHAPE = (250, 720, 512)
TILE, OVERLAP = 128, 32
CLASSES = ("background", "membrane", "spikes", "lumen")
WAYS = {
    "whole": "MONAI, whole",
    "buffered": "MONAI, buffered",
    "float32": "otzi, in memory",
    "uint8": "otzi, bytes",
    "zarr": "otzi, Zarr to Zarr",
}


class FakeNetwork:
    """Four classes from each voxel alone: as cheap as a network can be; it knows its calls."""

    classes = CLASSES
    size_multiple = 1
    normalisation = ROBUST
    n_measures = 0

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._layer = torch.nn.Conv3d(1, len(CLASSES), 1)
        self.n_calls = 0

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        import torch

        self.n_calls += 1
        with torch.no_grad():
            return torch.softmax(self._layer(tiles), dim=1)

    def __call__(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        import torch

        probabilities: NDArray[np.float32] = self.predict(torch.from_numpy(tiles)).numpy()
        return probabilities


def make(folder: Path, shape: Zyx) -> None:
    """Publish noise as a tomogram."""
    tomo = create_collection(folder, CLASSES).add("ts_001")
    rng = np.random.default_rng(0)
    spread = dict.fromkeys(("0.1", "0.5", "1"), -3.0) | dict.fromkeys(("99", "99.5", "99.9"), 3.0)
    with tomo.write(
        "raw", dtype="float32", shape=shape, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        for box in tile(shape, (256, 256, 256)):
            writer[box.slices] = rng.normal(0, 1, box.shape).astype(np.float32)
        writer.attributes["statistics"] = {
            "minimum": -6.0,
            "maximum": 6.0,
            "mean": 0.0,
            "standard_deviation": 1.0,
            "percentiles": spread | {"50": 0.0},
        }


def by_monai(volume: NDArray[np.float32], network: FakeNetwork, **buffer: int) -> None:
    import torch
    from monai.inferers import sliding_window_inference

    sliding_window_inference(
        torch.from_numpy(volume)[None, None],
        (TILE,) * 3,
        1,
        network.predict,
        overlap=OVERLAP / TILE,
        mode="gaussian",
        **buffer,
    )


def by_otzi(
    read: Callable[[Box], NDArray[np.float32]],
    shape: Zyx,
    network: FakeNetwork,
    take: Callable[[Box, NDArray[Any]], None],
    dtype: ProbabilityType = "uint8",
) -> None:
    from otzi.execute import Threads
    from otzi.tiles.batch import store_tiles
    from otzi.tiles.blocks import BlockPlan

    blocks = BlockPlan(TilePlan(shape, TILE, OVERLAP))
    store_tiles(read, network, blocks, take, Threads(1), dtype=dtype)


def from_zarr(folder: Path, network: FakeNetwork) -> None:
    from otzi.tiles.density import NormalisedDensity, slab_bytes

    tomo = open_collection(folder, "r+")["ts_001"]
    cache_bytes = min(128 * 10**6, slab_bytes(tomo.array("raw"), TilePlan(tomo.shape)))
    with tomo.write(
        "probs/net",
        dtype="uint8",
        channels=CLASSES,
        chunk_voxels=TILE - OVERLAP,
        recipe={},
        parents=("raw",),
    ) as writer:

        def take(cell: Box, stored: NDArray[np.uint8]) -> None:
            writer[(slice(None), *cell.slices)] = stored

        by_otzi(NormalisedDensity(tomo, cache_bytes), tomo.shape, network, take)


def run(way: str, folder: Path) -> dict[str, float]:
    """Run one way in this process, and give what it took."""
    network = FakeNetwork()
    shape = open_collection(folder)["ts_001"].shape
    per_tile = seconds_of_network(network)
    dtype: ProbabilityType = "float32" if way == "float32" else "uint8"
    warming_up = np.zeros((TILE, TILE, 2 * TILE), np.float32)
    if way not in ("whole", "buffered"):
        give_back_freed_memory()
        read = warming_up.__getitem__
        shape_of_two = (TILE, TILE, 2 * TILE)
        by_otzi(lambda box: read(box.slices), shape_of_two, network, lambda *_: None, dtype)
    else:
        by_monai(warming_up, network)
    network.n_calls = 0
    start_bytes = resident_memory_bytes()
    volume = np.zeros(0)
    if way != "zarr":
        volume = open_collection(folder)["ts_001"].array("raw")[...]
    begun, before = time.monotonic(), cpu_seconds()
    if way == "zarr":
        from_zarr(folder, network)
    elif way in ("float32", "uint8"):
        stored = np.empty((len(CLASSES), *shape), dtype)

        def take(cell: Box, block: NDArray[Any]) -> None:
            stored[(slice(None), *cell.slices)] = block

        by_otzi(lambda box: volume[box.slices], shape, network, take, dtype)
    elif way == "whole":
        by_monai(volume, network)
    else:
        longest = max(range(3), key=shape.__getitem__)
        by_monai(volume, network, buffer_steps=1, buffer_dim=longest)
    cpu = cpu_seconds() - before
    return {
        "peak_bytes": peak_memory_bytes() - start_bytes,
        "wall_seconds": time.monotonic() - begun,
        "tiles": network.n_calls,
        "overhead_seconds": cpu / network.n_calls - per_tile,
    }


def seconds_of_network(network: FakeNetwork, n_tiles: int = 16) -> float:
    """Give the CPU time of a tile."""
    tile_of_zeros = np.zeros((1, 1, TILE, TILE, TILE), np.float32)
    network(tile_of_zeros)
    before = cpu_seconds()
    for _ in range(n_tiles):
        network(tile_of_zeros)
    return (cpu_seconds() - before) / n_tiles


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    shape = tuple(map(int, sys.argv[1:4])) or SHAPE
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "collection"
        make(folder, shape)  # type: ignore[arg-type]
        found: dict[str, dict[str, float]] = {}
        for way in WAYS:
            command = [sys.executable, __file__, "run", way, str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            found[way] = {} if done.returncode else json.loads(done.stdout.splitlines()[-1])
    print(f"{' × '.join(map(str, shape))} voxels, {len(CLASSES)} classes, one thread")
    whole = found["whole"].get("peak_bytes", float("nan"))
    for way, numbers in found.items():
        if not numbers:
            print(f"  {WAYS[way]:<20}does not get to the end")
            continue
        fraction = whole / numbers["peak_bytes"]
        print(
            f"  {WAYS[way]:<20}{numbers['tiles']:4.0f} tiles {numbers['wall_seconds']:7.1f} s   "
            f"peak {format_bytes(numbers['peak_bytes']):>8}, 1 / {fraction:.1f} of MONAI's   "
            f"overhead {numbers['overhead_seconds'] * 1e3:6.1f} ms a tile"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(run(sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
