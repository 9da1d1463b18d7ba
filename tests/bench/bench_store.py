"""Writing a product with its pyramid, beside zarr-python and ome-zarr-py, in CPU-seconds.

Same volume, chunks of 64, shards of 256, blosc lz4, levels by 2×2×2 mean. Best of three rounds,
the writers taking turns.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import zarr
from ome_zarr.scale import Methods
from ome_zarr.writer import write_image

from otzi.collection import create_collection
from otzi.store.encoding import encoding_for
from otzi.store.grid import level_grids
from otzi.store.pyramid import halve

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SHAPE = (192, 512, 512)
SPACING = (10.0, 10.0, 10.0)
ROUNDS = 3
CODECS = encoding_for("raw", np.dtype("f4")).zarr_codecs(4)


def by_otzi(volume: NDArray[np.float32], folder: Path) -> None:
    tomo = create_collection(folder).add("ts_001")
    with tomo.write(
        "raw", dtype="float32", shape=SHAPE, spacing_angstrom=SPACING, recipe={}
    ) as writer:
        for z in range(0, SHAPE[0], 64):
            writer[z : z + 64, : SHAPE[1], : SHAPE[2]] = volume[z : z + 64]


def by_zarr(volume: NDArray[np.float32], folder: Path) -> None:
    level: NDArray[np.float32] | zarr.Array = volume
    for number, grid in enumerate(level_grids(SHAPE, n_channels=None)):
        array = zarr.create_array(
            folder / str(number),
            shape=grid.shape,
            dtype="float32",
            chunks=grid.chunk,
            shards=grid.shard,
            compressors=CODECS,
        )
        for shard in grid.shards():
            corner = [i * s for i, s in zip(shard, grid.shard, strict=True)]
            region = tuple(
                slice(a, min(a + s, n))
                for a, s, n in zip(corner, grid.shard, grid.shape, strict=True)
            )
            if number == 0:
                array[region] = volume[region]
            else:
                finer = tuple(slice(2 * s.start, 2 * s.stop) for s in region)
                array[region] = halve(np.asarray(level[finer]), "mean")
        level = array


def by_ome_zarr(volume: NDArray[np.float32], folder: Path) -> None:
    factors = [dict.fromkeys("zyx", 2**level) for level in (1, 2, 3)]
    write_image(
        da.from_array(volume, chunks=(192, 256, 256)),
        zarr.open_group(folder, mode="w", zarr_format=3),
        axes="zyx",
        scale_factors=factors,
        method=Methods.LOCAL_MEAN,
        storage_options={"chunks": (64, 64, 64), "shards": (192, 256, 256), "compressors": CODECS},
    )


def cpu_seconds(
    write: Callable[[NDArray[np.float32], Path], None], volume: NDArray[np.float32]
) -> float:
    folder = Path(tempfile.mkdtemp())
    before = resource.getrusage(resource.RUSAGE_SELF)
    write(volume, folder / "out")
    after = resource.getrusage(resource.RUSAGE_SELF)
    shutil.rmtree(folder)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    rng = np.random.default_rng(0)
    volume = rng.normal(0, 1, SHAPE).astype(np.float32)
    writers = {"otzi": by_otzi, "zarr-python": by_zarr, "ome-zarr-py": by_ome_zarr}
    best = dict.fromkeys(writers, float("inf"))
    for _ in range(ROUNDS):
        for name, write in writers.items():
            best[name] = min(best[name], cpu_seconds(write, volume))
    print(f"writing {SHAPE} float32 with its pyramid")
    for name, seconds in best.items():
        rate = volume.nbytes / 1e6 / seconds
        print(f"  {name:<12}{rate:7.0f} MB/CPU-s   otzi / it {seconds / best['otzi']:5.2f}")


if __name__ == "__main__":
    main()
