"""The viewer's server: ranges beside tornado's own handler, strokes, the list, and a first slice.

CPU is that of the serving process; the client is another one. The first slice needs chromium.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from tornado.web import StaticFileHandler

sys.path.insert(0, str(Path(__file__).parents[1]))

from otzi.collection import create_collection
from otzi_viewers.data_route import DataHandler
from otzi_viewers.page_state import change_state
from otzi_viewers.pages.website import Site
from otzi_viewers.server import view_server
from otzi_viewers.snapshot import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otzi.tomogram import Tomogram
    from otzi_viewers.server import ViewServer

RANGE_BYTES = 256 * 1024
REQUESTS = 600
CONNECTIONS = 6
FILE_BYTES = 60 << 20
ROUNDS = 3
SHAPE = (128, 1024, 1024)
VIEW = 640

CLIENT = """
import sys, time, threading, random, json
from http.client import HTTPConnection
host, path, n, size, total, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
times = []
def work(seed):
    rng = random.Random(seed)
    connection = HTTPConnection(host)
    for _ in range(n // threads):
        start = rng.randrange(total - size)
        begin = time.perf_counter()
        connection.request("GET", path, headers={"Range": f"bytes={start}-{start + size - 1}"})
        answer = connection.getresponse()
        assert answer.status == 206 and len(answer.read()) == size
        times.append(time.perf_counter() - begin)
workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
[w.start() for w in workers]; [w.join() for w in workers]
print(json.dumps(times))
"""


def ask_ranges(url: str) -> tuple[float, list[float]]:
    """Give the server's CPU seconds for each request, and how long each took."""
    parts = urlsplit(url)
    before = resource.getrusage(resource.RUSAGE_SELF)
    words = [parts.netloc, parts.path, REQUESTS, RANGE_BYTES, FILE_BYTES, CONNECTIONS]
    run = subprocess.run(
        [sys.executable, "-c", CLIENT, *map(str, words)], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used / REQUESTS, json.loads(run.stdout)


def ranges(server: ViewServer, folder: Path) -> None:
    (folder / "file").write_bytes(np.random.default_rng(0).bytes(FILE_BYTES))
    ours = server.serve(folder) + "/file"
    theirs = server.mount("static", [("(.*)", StaticFileHandler, {"path": str(folder)})]) + "/file"
    best: dict[str, float] = {}
    times: list[float] = []
    for _ in range(ROUNDS):
        for name, url in {"otzi": ours, "tornado": theirs}.items():
            cpu, took = ask_ranges(url)
            best[name] = min(best.get(name, 1.0), cpu)
            times = took if name == "otzi" else times
    ratio = best["otzi"] / best["tornado"]
    print(f"{'CPU for 256 KiB, otzi':<44}{best['otzi'] * 1e3:8.2f} ms")
    print(f"{'CPU for 256 KiB, tornado StaticFileHandler':<44}{best['tornado'] * 1e3:8.2f} ms")
    print(f"{'ratio (goal 1.5 at most)':<44}{ratio:8.2f}")
    p50, p95 = statistics.median(times), np.percentile(times, 95)
    print(f"{'p95 / p50 at 6 connections (goal 3 at most)':<44}{p95 / p50:8.2f}")


def make(folder: Path) -> Tomogram:
    """Give a tomogram of noise with a product `view` of two channels, as it is stored."""
    rng = np.random.default_rng(0)
    tomo = create_collection(folder / "c", ("background", "membrane")).add("ts_001")
    with tomo.write(
        "raw", dtype="i1", shape=SHAPE, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        for y in range(0, SHAPE[1], 256):
            block = rng.integers(-90, 90, (SHAPE[0], 256, SHAPE[2]), np.int8)
            writer[0 : SHAPE[0], y : y + 256, 0 : SHAPE[2]] = block
        writer.attributes["statistics"] = {"percentiles": {"0.5": -89.0, "99.5": 89.0}}
    return tomo


def strokes_and_list(server: ViewServer, tomo: Tomogram) -> None:
    site = Site(server, tomo.collection)
    workspace = site.workspace(tomo.id)
    rng = np.random.default_rng(0)
    document = {"schema": 1, "tomogram": tomo.id, "classes": ["background", "membrane"]}
    took = []
    for _ in range(20):
        z, y, x = (int(rng.integers(30, n - 30)) for n in SHAPE)
        points = [[z, y, x], [z, y + 9, x + 20]]
        stroke = {"class": "membrane", "radius": 3, "points": points}
        begin = time.perf_counter()
        workspace.draw(document | {"strokes": [stroke]})
        chunk = [slice(v // 64 * 64, v // 64 * 64 + 64) for v in (z, y, x)]
        assert workspace._overlay.data[tuple(chunk)].any()
        took.append(time.perf_counter() - begin)
    print(f"{'stroke to its voxels, median':<44}{statistics.median(took) * 1e3:8.1f} ms")


def first_slice(server: ViewServer, tomo: Tomogram) -> None:
    """Open a slice in a browser, and count what it costs beside what it crosses."""
    from browser.driver import browser

    def missing(part: str, reason: str) -> None:
        raise SystemExit(f"{part}: {reason}")

    asked: list[tuple[str, str, int]] = []
    finish = DataHandler.on_finish

    def on_finish(handler: DataHandler) -> None:
        length = int(handler._headers.get("Content-Length", 0))
        asked.append((handler.request.method or "", handler.request.path, length))
        finish(handler)

    DataHandler.on_finish = on_finish  # type: ignore[method-assign]
    site = Site(server, tomo.collection)
    viewer = site.workspace(tomo.id).viewer
    position = [SHAPE[2] // 2, SHAPE[1] // 2, SHAPE[0] // 2]

    def alone(state: dict[str, Any]) -> dict[str, Any]:
        layers = [layer for layer in state["layers"] if layer["name"] == "raw"]
        kept = {key: value for key, value in state.items() if key != "selectedLayer"}
        return (
            kept
            | {"layers": layers, "position": position, "crossSectionScale": 1}
            | {"layout": {"type": "xy"}}
        )

    change_state(viewer, alone)
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False
        config.viewer_size = (VIEW, VIEW)
    with browser(missing, (VIEW + 20, VIEW + 120)) as page:
        page.open(viewer.get_viewer_url())
        take_snapshot(viewer, 120, (VIEW, VIEW))
    level = f"raw/{tomo.path('raw').name}/0/c/"
    gets = [n for method, path, n in asked if method == "GET" and level in path]
    array = tomo.array("raw")
    chunk = array.chunk[-1]
    low, high = ((SHAPE[1] - VIEW) // 2 // chunk, -(-(SHAPE[1] + VIEW) // 2 // chunk))
    crossed = (high - low) ** 2
    sizes = list(_chunk_sizes(tomo))
    per_chunk = statistics.mean(sizes)
    whole = max(path.stat().st_size for path in (tomo.path("raw") / "0").rglob("*/*/*/*"))
    n_shards = len({path for _, path, _ in asked if level in path})
    print(f"{'chunks and shards that the slice crosses':<44}{crossed:8} {n_shards}")
    print(f"{'requests of level 0':<44}{sum(level in path for _, path, _ in asked):8}")
    print(f"{'goal: 2 · shards + chunks, at most':<44}{2 * n_shards + crossed:8}")
    print(f"{'bytes / bytes of the chunks (goal 1.3)':<44}{sum(gets) / (crossed * per_chunk):8.2f}")
    print(f"{'whole shards fetched (goal 0)':<44}{sum(n >= whole for n in gets):8}")


def _chunk_sizes(tomo: Tomogram) -> Iterator[float]:
    """Yield the mean stored size of a chunk of each shard of level 0."""
    array = tomo.array("raw")
    for path in (tomo.path("raw") / "0").rglob("*/*/*/*"):
        if path.is_file():
            yield path.stat().st_size / np.prod(array.grid.chunks_per_shard)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, view_server() as server:
        folder = Path(name)
        ranges(server, folder)
        tomo = make(folder)
        strokes_and_list(server, tomo)
        if shutil.which("chromium"):
            first_slice(server, tomo)


if __name__ == "__main__":
    main()
