"""What the first slice of a tomogram of the published size costs a browser: bytes and requests.

500 × 1440 × 1024 voxels, ``raw`` int8 and ``view`` of five channels, written shard by shard from
one tile of noise; 2 GB on the disk, for as long as it runs. Each is opened alone, a slice whole as
a page opens it, and one in which a voxel is a pixel. Needs chromium. ``bench_first_slice.py Z Y X``
takes another shape.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import defaultdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.driver import browser
from otzi.box import tile
from otzi.collection import create_collection
from otzi_viewers.data_route import DataHandler
from otzi_viewers.page_state import change_state
from otzi_viewers.pages.website import Site
from otzi_viewers.server import view_server
from otzi_viewers.snapshot import take_snapshot

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram
    from otzi_viewers.server import ViewServer

SHAPE = (500, 1440, 1024)
SHARD = 256
CANVAS = (640, 640)
SECONDS = 300
LAYERS = {"raw": "raw", "view": "slices"}


def make(folder: Path, shape: tuple[int, int, int]) -> Tomogram:
    """Give a tomogram with both products."""
    rng = np.random.default_rng(0)
    tomo = create_collection(folder / "c").add("ts_001")
    noise = rng.integers(-90, 90, (SHARD,) * 3, np.int8)
    with tomo.write(
        "raw", dtype="i1", shape=shape, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        for box in tile(shape, noise.shape):
            writer[box.slices] = noise[tuple(slice(n) for n in box.shape)]
        percentiles = {"0.1": -90.0, "0.5": -89.0, "50": 0.0, "99.5": 89.0, "99.9": 90.0}
        writer.attributes["statistics"] = {"percentiles": percentiles}
    channels = ("density", *tomo.classes.names)
    smooth = np.stack([ndimage.zoom(rng.random((17,) * 3), 16, order=1)[:SHARD, :SHARD, :SHARD]])
    values = np.rint(smooth * 255).astype(np.uint8).repeat(len(channels), axis=0)
    with tomo.write(
        "view",
        dtype="u1",
        recipe={},
        channels=channels,
        channels_per_chunk=len(channels),
    ) as writer:
        for box in tile(shape, noise.shape):
            part = values[(slice(None), *(slice(n) for n in box.shape))]
            writer[(slice(len(channels)), *box.slices)] = part
        writer.attributes |= {"probs": None, "ramps": {}, "overview": {"level": 3}}
    return tomo


class Requests:
    """What a browser asks the data route for: methods and bytes, by path."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        finish = DataHandler.on_finish

        def on_finish(handler: DataHandler) -> None:
            length = int(handler._headers.get("Content-Length", 0))
            self.asked.append((handler.request.method or "", handler.request.path, length))
            finish(handler)

        DataHandler.on_finish = on_finish  # type: ignore[method-assign]

    def by_level(self, product: str) -> dict[int, list[tuple[str, str, int]]]:
        """Give those of the shards of each level."""
        found: dict[int, list[tuple[str, str, int]]] = defaultdict(list)
        for method, path, n_bytes in self.asked:
            if match := re.search(rf"/{product}/\d+/(\d+)/(c/.+)", path):
                found[int(match[1])].append((method, match[2], n_bytes))
        return found


def crossed(
    tomo: Tomogram, product: str, level: int, half_pixels: float, voxels_per_pixel: float
) -> tuple[int, int, int]:
    """Give the chunks that a slice through the middle crosses, their shards and stored bytes."""
    array = tomo.array(product, level)
    grid = array.grid
    *_, z, y, x = grid.shape
    reach = half_pixels * voxels_per_pixel / 2**level
    ranges = [[z // 2 // grid.chunk[-3]]]
    for n, side in ((y, grid.chunk[-2]), (x, grid.chunk[-1])):
        low, high = max(0.0, n / 2 - reach), min(float(n), n / 2 + reach)
        ranges.append(list(range(int(low // side), int(-(-high // side)))))
    lead = (0,) * (len(grid.shape) - 3)
    shards: dict[tuple[int, ...], np.ndarray] = {}
    n_bytes = 0
    chunks = [(*lead, k, j, i) for k in ranges[0] for j in ranges[1] for i in ranges[2]]
    for chunk in chunks:
        shard = grid.shard_of(chunk)
        if shard not in shards:
            file = tomo.path(product) / str(level) / "c" / "/".join(map(str, shard))
            n = prod(grid.chunks_per_shard)
            index = np.frombuffer(file.read_bytes()[-(16 * n + 4) : -4], "<u8")
            shards[shard] = index.reshape(*grid.chunks_per_shard, 2)
        within = tuple(a % b for a, b in zip(chunk, grid.chunks_per_shard, strict=True))
        n_bytes += int(shards[shard][within][1])
    return len(chunks), len(shards), n_bytes


def measure(
    server: ViewServer, tomo: Tomogram, requests: Requests, product: str, zoom: float | None
) -> None:
    """Open one slice of one product in a new browser, and print what it costs."""

    def missing(part: str, reason: str) -> None:
        raise SystemExit(f"{part}: {reason}")

    workspace = Site(server, tomo.collection).workspace(tomo.id)
    workspace.show({"layout": "xy"})
    viewer = workspace.viewer

    def alone(state: dict[str, Any]) -> dict[str, Any]:
        layers = [
            layer | {"visible": True}
            for layer in state["layers"]
            if layer["name"] == LAYERS[product]
        ]
        kept = {key: value for key, value in state.items() if key != "selectedLayer"}
        return kept | {"layers": layers} | ({"crossSectionScale": zoom} if zoom else {})

    change_state(viewer, alone)
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False
        config.viewer_size = CANVAS
    scale = viewer.state.cross_section_scale
    requests.asked.clear()
    with browser(missing, (CANVAS[0] + 20, CANVAS[1] + 120)) as page:
        page.open(viewer.get_viewer_url())
        take_snapshot(viewer, SECONDS, CANVAS)
    print(f"{product}, {scale:.2f} voxels a pixel")
    moved, of_finest = 0, 0
    for level, asked in sorted(requests.by_level(product).items()):
        chunks, shards, n_bytes = crossed(tomo, product, level, CANVAS[0] / 2, scale)
        folder = tomo.path(product) / str(level)
        n_whole = sum(
            method == "GET" and n >= (folder / path).stat().st_size for method, path, n in asked
        )
        got = sum(n for method, _, n in asked if method == "GET")
        moved += got
        of_finest = of_finest or n_bytes
        print(
            f"  level {level}: {chunks} chunks in {shards} shards crossed; {len(asked)} requests "
            f"(goal {2 * shards + chunks} at most), bytes {got / n_bytes:.3f} of the chunks' "
            f"(goal 1.3 at most), {n_whole} whole shards (goal 0)"
        )
    print(
        f"  all: {moved / 1e6:.1f} MB, {moved / of_finest:.2f} of the finest level's chunks: "
        "Neuroglancer has the coarser ones first"
    )


def main() -> None:
    z, y, x = map(int, sys.argv[1:4]) if sys.argv[1:] else SHAPE
    with tempfile.TemporaryDirectory() as name, view_server() as server:
        tomo = make(Path(name), (z, y, x))
        requests = Requests()
        for product in LAYERS:
            for zoom in (None, 1.0):
                measure(server, tomo, requests, product, zoom)


if __name__ == "__main__":
    main()
