"""What the view product is made of, in bytes, beside the float32 of its channels.

On the tomogram of the demo, with the votes of a forest as its probabilities: each file of the
product counts, the pyramid and the overview included. ``bench_view_bytes.py COLLECTION…`` looks at
the products of other collections, such as the network's of ``otzi demo``. Then level 0 with other
codecs, chunk by chunk, in one thread.
"""

from __future__ import annotations

import sys
import tempfile
import time
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
from numcodecs import Zstd

from otzi.box import tile
from otzi.collection import create_collection, open_collection
from otzi.memory import parse_bytes
from otzi.store.encoding import Encoding
from otzi.strokes import read_strokes
from otzi_pipelines.demo_data import TOMOGRAM, strokes_file, unpack_tomogram
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.label.pseudolabel import pseudolabel
from otzi_pipelines.label.stroke_import import import_strokes
from otzi_pipelines.view_product import build_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

GOAL = 0.25
CODECS: dict[str, Callable[[np.ndarray], bytes]] = {
    "bit planes (as stored)": Encoding("bitplanes").encode,
    "zstd 1": Zstd(1).encode,
    "zstd 5": Zstd(5).encode,
}


def make(folder: Path) -> Tomogram:
    """Give the demo's tomogram with the votes of a forest as ``probs/forest``."""
    strokes = read_strokes(strokes_file())
    collection = create_collection(folder / "c", strokes.classes)
    ingest(collection, [unpack_tomogram(folder)], memory_bytes=parse_bytes("2GB"))
    tomo = collection[TOMOGRAM]
    import_strokes(tomo, strokes_file())
    pseudolabel(tomo, name="forest", memory_bytes=parse_bytes("2GB"))
    labels = tomo.array("labels/forest")
    with tomo.write(
        "probs/forest", dtype="u1", recipe={}, channels=tomo.image("labels/forest").channels
    ) as writer:
        da.store(da.from_array(labels[...], chunks=labels.chunk), writer, lock=False)
    build_view(tomo, "forest")
    return tomo


def table(tomo: Tomogram) -> None:
    folder, array = tomo.path("view"), tomo.array("view")
    whole = 4 * prod(array.shape)
    parts: dict[str, int] = {}
    for file in folder.rglob("*"):
        if file.is_file():
            part = file.relative_to(folder).parts[0]
            name = f"level {part}" if part.isdigit() else part if part == "overview" else "metadata"
            parts[name] = parts.get(name, 0) + file.stat().st_size
    print(f"{tomo.id}, {' '.join(tomo.image('view').channels or ())}, {array.shape[1:]}")
    for name, n_bytes in sorted(parts.items()):
        print(f"  {name:<42}{n_bytes:12,} bytes{n_bytes / whole:8.4f}")
    total = sum(parts.values())
    print(f"  {f'all, of float32 (goal {GOAL} at most)':<42}{total:12,} bytes{total / whole:8.4f}")
    chunks = [
        np.ascontiguousarray(array[(slice(None), *box.slices)])
        for box in tile(array.shape[1:], array.chunk[1:])
    ]
    for name, encode in CODECS.items():
        begun = time.process_time()
        n_bytes = sum(len(encode(chunk)) for chunk in chunks)
        speed = prod(array.shape) / (time.process_time() - begun) / 1e6
        print(
            f"  {f'level 0, {name}':<42}{n_bytes:12,} bytes{n_bytes / whole:8.4f}{speed:6.0f} MB/s"
        )


def main() -> None:
    if sys.argv[1:]:
        for path in sys.argv[1:]:
            for tomo in open_collection(path):
                if tomo.has("view"):
                    table(tomo)
        return
    with tempfile.TemporaryDirectory() as name:
        table(make(Path(name)))


if __name__ == "__main__":
    main()
