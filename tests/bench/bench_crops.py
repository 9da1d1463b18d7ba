"""Random 128³ crops of a float16 volume, beside zarr-python and tensorstore, in CPU-seconds.

Chunks of 64, shards of 256, warm page cache, one thread of callers; the readers take turns, best
of three rounds. Then our reader alone with origins snapped to a grid.
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorstore
import zarr

from otzi.collection import create_collection

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram

SHAPE = (256, 512, 512)
CROP = 128
CROPS = 40
ROUNDS = 3

Read = "Callable[[tuple[slice, ...]], NDArray[np.float16]]"


def make(folder: Path) -> Tomogram:
    volume = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float16)
    tomo = create_collection(folder / "c").add("ts_001")
    with tomo.write(
        "raw", dtype="float16", shape=SHAPE, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        for z in range(0, SHAPE[0], 64):
            writer[z : z + 64, : SHAPE[1], : SHAPE[2]] = volume[z : z + 64]
    return tomo


def boxes(grid: int, seed: int) -> list[tuple[slice, ...]]:
    rng = np.random.default_rng(seed)
    origins = [
        [int(rng.integers((n - CROP) // grid + 1)) * grid for n in SHAPE] for _ in range(CROPS)
    ]
    return [tuple(slice(a, a + CROP) for a in origin) for origin in origins]


def rate(read: Callable[[tuple[slice, ...]], NDArray[np.float16]], grid: int, seed: int) -> float:
    """Give crops for each CPU-second."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    for box in boxes(grid, seed):
        read(box)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return CROPS / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tomo = make(Path(folder))
        path = tomo.path("raw") / "0"
        by_zarr = zarr.open_array(path, mode="r")
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
        by_tensorstore = tensorstore.open(spec, read=True).result()
        readers = {
            "otzi": tomo.array("raw").__getitem__,
            "zarr-python": by_zarr.__getitem__,
            "tensorstore": lambda box: by_tensorstore[box].read().result(),
        }
        best = dict.fromkeys(readers, 0.0)
        by_grid = dict.fromkeys((1, 32, 64), 0.0)
        for seed in range(ROUNDS):
            for name, read in readers.items():
                best[name] = max(best[name], rate(read, 1, seed))
            for grid in by_grid:
                by_grid[grid] = max(by_grid[grid], rate(readers["otzi"], grid, seed))
        megabytes = CROP**3 * 4 / 1e6
        print(f"{CROP}³ crops of float16, chunks of 64 in shards of 256, any origin")
        for name, crops in best.items():
            print(
                f"  {name:<12}{crops:7.1f} crops/CPU-s {crops * megabytes:7.0f} MB float32/CPU-s"
                f"   otzi / it {best['otzi'] / crops:5.2f}"
            )
        for grid, crops in by_grid.items():
            print(f"  otzi, origins on multiples of {grid:<3}{crops:7.1f} crops/CPU-s")


if __name__ == "__main__":
    main()
