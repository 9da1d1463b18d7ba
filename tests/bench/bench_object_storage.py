"""Random 128³ crops of a float16 volume in S3, beside zarr-python by s3fs and by obstore.

The server is moto's, in a process of its own on this machine: it answers a request in about 2 ms of
one core, so that wall time is its own as much as the client's; CPU-seconds are the client's alone.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import FsspecStore

from otzi.collection import create_collection
from otzi.store.location import zarr_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPE = (256, 256, 512)
CROP = 128
CROPS = 12
ROUNDS = 3
SERVER = Path(__file__).parents[1] / "s3_server.py"


@contextmanager
def server() -> Iterator[str]:
    with subprocess.Popen([sys.executable, SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def make() -> Any:
    tomo = create_collection("s3://tomograms/bench").add("ts_001")
    volume = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float16)
    begun = time.monotonic()
    with tomo.write(
        "raw", dtype="float16", shape=SHAPE, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        writer[tuple(slice(n) for n in SHAPE)] = volume
    seconds = time.monotonic() - begun
    print(f"written and published: {volume.nbytes / 1e6:.0f} MB in {seconds:.1f} s")
    return tomo


def boxes(seed: int) -> list[tuple[slice, ...]]:
    rng = np.random.default_rng(seed)
    origins = [[int(rng.integers(n - CROP + 1)) for n in SHAPE] for _ in range(CROPS)]
    return [tuple(slice(a, a + CROP) for a in origin) for origin in origins]


def rates(read: Callable[[Any], Any], seed: int) -> tuple[float, float]:
    """Give crops for each CPU-second and for each second."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    for box in boxes(seed):
        read(box)
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return CROPS / cpu, CROPS / seconds


def main() -> None:
    with server() as url, tempfile.TemporaryDirectory() as scratch:
        os.environ.update(
            AWS_ENDPOINT_URL_S3=url,
            AWS_ACCESS_KEY_ID="otzi",
            AWS_SECRET_ACCESS_KEY="secret",
            AWS_REGION="us-east-1",
            OTZI_SCRATCH=scratch,
        )
        tomo = make()
        place = tomo.path("raw")
        options = {"endpoint_url": url}
        by_s3fs = FsspecStore.from_url(f"{place}/0", storage_options=options, read_only=True)
        readers = {
            "otzi": tomo.array("raw").__getitem__,
            "zarr, s3fs": zarr.open_array(by_s3fs, mode="r").__getitem__,
            "zarr, obstore": zarr.open_array(zarr_store(place / "0"), mode="r").__getitem__,
        }
        best = dict.fromkeys(readers, (0.0, 0.0))
        for seed in range(ROUNDS):
            for name, read in readers.items():
                found = rates(read, seed)
                best[name] = max(best[name][0], found[0]), max(best[name][1], found[1])
    print(f"{CROP}³ crops of float16 in S3, chunks of 64 in shards of 256, any origin")
    for name, (cpu, wall) in best.items():
        times = f"{best['otzi'][0] / cpu:5.2f} CPU, {best['otzi'][1] / wall:5.2f} wall"
        print(f"  {name:<14}{cpu:7.1f} crops/CPU-s {wall:7.1f} crops/s   otzi / it {times}")


if __name__ == "__main__":
    main()
