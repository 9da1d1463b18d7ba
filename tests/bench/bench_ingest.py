"""MRC to a pyramid in Zarr v3: otzi beside its peers and the floor, each run in its own process.

Same file, chunks of 64, shards of 256, levels by 2×2×2 mean, zstd level 1 where the tool lets one
choose. The floor reads, encodes and writes one level and nothing else. Tools take turns; medians
of three rounds of CPU-seconds, wall time and peak memory, less those of a process that has run the
tool once on a tiny file. ``--size Z Y X`` chooses the volume, ``--only otzi floor`` the tools.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CHUNK, SHARD, LEVELS, ROUNDS = 64, 256, 4, 3
Shape = tuple[int, ...]


def make_mrc(path: Path, shape: Shape) -> None:
    """Write noise that is slightly smooth on a smooth ground, plane by plane."""
    import mrcfile
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    with mrcfile.new_mmap(path, shape, mrc_mode=2, overwrite=True) as file:
        file.voxel_size = 10.0
        file.set_volume()
        ground = gaussian_filter(rng.normal(0, 1, shape[1:]), 9)
        for z in range(shape[0]):
            file.data[z] = gaussian_filter(rng.normal(0, 1, shape[1:]), 0.6) + ground


def mapped(path: Path) -> NDArray[np.float32]:
    import mrcfile

    data: NDArray[np.float32] = mrcfile.mmap(path, mode="r").data
    return data


def level_shapes(shape: Shape) -> list[Shape]:
    return [tuple(n // 2**level for n in shape) for level in range(LEVELS)]


def clipped_shard(shape: Shape) -> Shape:
    return tuple(min(SHARD, -(-n // CHUNK) * CHUNK) for n in shape)


def mean(block: NDArray[np.float32]) -> NDArray[np.float32]:
    z, y, x = (n // 2 for n in block.shape)
    even = block[: 2 * z, : 2 * y, : 2 * x]
    halves = even.reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5), dtype=np.float32)
    return np.asarray(halves, np.float32)


def regions(shape: Shape) -> list[tuple[slice, ...]]:
    from itertools import product

    corners = product(*(range(0, n, SHARD) for n in shape))
    return [
        tuple(slice(a, min(a + SHARD, n)) for a, n in zip(corner, shape, strict=True))
        for corner in corners
    ]


def by_floor(source: Path, out: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from itertools import product

    from numcodecs import Zstd

    zstd = Zstd(level=1)
    with source.open("rb") as file, out.open("wb") as target, ThreadPoolExecutor(2) as pool:
        file.seek(1024)
        nz, ny, nx = mapped(source).shape
        for z in range(0, nz, CHUNK):
            depth = min(CHUNK, nz - z)
            slab = np.fromfile(file, np.float32, depth * ny * nx).reshape(depth, ny, nx)
            corners = product(range(0, ny, CHUNK), range(0, nx, CHUNK))
            chunks = (slab[:, y : y + CHUNK, x : x + CHUNK] for y, x in corners)
            for data in pool.map(lambda c: zstd.encode(np.ascontiguousarray(c)), chunks):
                target.write(data)


def by_otzi(source: Path, out: Path) -> None:
    from otzi_pipelines.ingest.batch import ingest

    report = ingest(out, [source])
    assert report.exit_code == 0


def by_zarr(source: Path, out: Path) -> None:
    import zarr
    from zarr.codecs import ZstdCodec

    finer: Any = mapped(source)
    for number, shape in enumerate(level_shapes(finer.shape)):
        array = zarr.create_array(
            out / str(number),
            shape=shape,
            dtype="float32",
            chunks=(CHUNK,) * 3,
            shards=clipped_shard(shape),
            compressors=[ZstdCodec(level=1)],
        )
        for region in regions(shape):
            if number == 0:
                array[region] = finer[region]
            else:
                array[region] = mean(finer[tuple(slice(2 * s.start, 2 * s.stop) for s in region)])
        finer = array


def by_tensorstore(source: Path, out: Path) -> None:
    import tensorstore

    finer: Any = mapped(source)
    for number, shape in enumerate(level_shapes(finer.shape)):
        inner = {
            "chunk_shape": [CHUNK] * 3,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"level": 1}},
            ],
        }
        array = tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(out / str(number))},
                "metadata": {
                    "shape": list(shape),
                    "data_type": "float32",
                    "chunk_grid": {
                        "name": "regular",
                        "configuration": {"chunk_shape": list(clipped_shard(shape))},
                    },
                    "codecs": [{"name": "sharding_indexed", "configuration": inner}],
                },
            },
            create=True,
        ).result()
        for region in regions(shape):
            if number == 0:
                array[region].write(finer[region]).result()
            else:
                twice = tuple(
                    slice(2 * s.start, min(2 * s.stop, n))
                    for s, n in zip(region, finer.shape, strict=True)
                )
                block = finer[twice].read().result()
                array[region].write(mean(block)).result()
        finer = array


def by_ome_zarr(source: Path, out: Path) -> None:
    import dask.array as da
    import zarr
    from ome_zarr.scale import Methods
    from ome_zarr.writer import write_image
    from zarr.codecs import ZstdCodec

    volume = mapped(source)
    write_image(
        da.from_array(volume, chunks=clipped_shard(volume.shape)),
        zarr.open_group(out, mode="w", zarr_format=3),
        axes="zyx",
        scale_factors=[dict.fromkeys("zyx", 2**level) for level in range(1, LEVELS)],
        method=Methods.LOCAL_MEAN,
        storage_options={
            "chunks": (CHUNK,) * 3,
            "shards": clipped_shard(volume.shape),
            "compressors": [ZstdCodec(level=1)],
        },
    )


def by_ngff_zarr(source: Path, out: Path) -> None:
    import dask.array as da
    import ngff_zarr

    volume = da.from_array(mapped(source), chunks=(SHARD,) * 3)
    image = ngff_zarr.to_ngff_image(volume, dims=["z", "y", "x"], scale=dict.fromkeys("zyx", 10.0))
    multiscales = ngff_zarr.to_multiscales(
        image,
        scale_factors=[2**level for level in range(1, LEVELS)],
        chunks=CHUNK,
        method=ngff_zarr.Methods.DASK_BIN_SHRINK,
        cache=False,
    )
    ngff_zarr.to_ngff_zarr(str(out), multiscales, version="0.5", chunks_per_shard=SHARD // CHUNK)


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "floor": by_floor,
    "otzi": by_otzi,
    "tensorstore": by_tensorstore,
    "ome-zarr-py": by_ome_zarr,
    "ngff-zarr": by_ngff_zarr,
    "zarr-python": by_zarr,
}


def memory_megabytes(field: str) -> float:
    """Give ``VmRSS`` or ``VmHWM`` of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1000 for line in lines if line.startswith(field))


def run_one(tool: str, source: Path, out: Path) -> None:
    """Run a tool in this process and print what it took, after a small run that imports all."""
    small = out.with_name("small.mrc")
    make_mrc(small, (64, 96, 96))
    TOOLS[tool](small, out.with_name("small"))
    before, memory, began = cpu_seconds(), memory_megabytes("VmRSS"), time.monotonic()
    TOOLS[tool](source, out)
    measured = {
        "cpu": cpu_seconds() - before,
        "wall": time.monotonic() - began,
        "megabytes": memory_megabytes("VmHWM") - memory,
    }
    print(json.dumps(measured))


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(tool: str, source: Path) -> dict[str, float] | None:
    """Give what a tool takes in a process of its own, or None if it fails here."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [sys.executable, __file__, "--tool", tool, str(source), f"{folder}/out"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        print(f"{tool} failed: {run.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    row: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", nargs=3, metavar=("NAME", "MRC", "OUT"))
    parser.add_argument("--size", nargs=3, type=int, default=[300, 512, 512])
    parser.add_argument("--only", nargs="*", default=list(TOOLS))
    arguments = parser.parse_args()
    if arguments.tool:
        name, source, out = arguments.tool
        run_one(name, Path(source), Path(out))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "volume.mrc"
        make_mrc(source, tuple(arguments.size))
        names = [name for name in TOOLS if name in arguments.only]
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(ROUNDS):
            for name in names:
                if row := measure(name, source):
                    rows[name].append(row)
        report(rows, source.stat().st_size / 1e6)


def report(rows: dict[str, list[dict[str, float]]], megabytes: float) -> None:
    medians = {
        name: {key: median(row[key] for row in found) for key in found[0]}
        for name, found in rows.items()
        if found
    }
    print(f"{megabytes:.0f} MB of float32 MRC to {LEVELS} levels; otzi / it in MB/CPU-s")
    ours = medians["otzi"]["cpu"]
    for name, row in medians.items():
        print(
            f"  {name:<12}{megabytes / row['cpu']:7.0f} MB/CPU-s{row['cpu']:8.2f} CPU-s"
            f"{row['wall']:8.2f} s{row['megabytes']:7.0f} MB{row['cpu'] / ours:8.2f}"
        )


if __name__ == "__main__":
    main()
