"""The viewer's server: ranges beside tornado's own handler, strokes, the list, errors.

CPU is that of the serving process; the client is another one. What a browser shows needs chromium.
"""

from __future__ import annotations

import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pytest
from tornado.web import StaticFileHandler

sys.path.insert(0, str(Path(__file__).parents[1]))

from otzi.collection import create_collection, open_collection
from otzi_viewers.pages.website import Site
from otzi_viewers.server import view_server

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram
    from otzi_viewers.server import ViewServer

RANGE_BYTES = 256 * 1024
REQUESTS = 600
CONNECTIONS = 6
FILE_BYTES = 60 << 20
ROUNDS = 3
SHAPE = (128, 1024, 1024)

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
    tail: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, url in {"otzi": ours, "tornado": theirs}.items():
            cpu, took = ask_ranges(url)
            best[name] = min(best.get(name, math.inf), cpu)
            spread = np.percentile(took, 95) / statistics.median(took)
            tail[name] = min(tail.get(name, math.inf), spread)
    ratio = best["otzi"] / best["tornado"]
    print(f"{'CPU for 256 KiB, otzi':<44}{best['otzi'] * 1e3:8.2f} ms")
    print(f"{'CPU for 256 KiB, tornado StaticFileHandler':<44}{best['tornado'] * 1e3:8.2f} ms")
    print(f"{'ratio (goal 1.5 at most)':<44}{ratio:8.2f}")
    print(f"{'p95 / p50 at 6 connections (goal 3 at most)':<44}{tail['otzi']:8.2f}")
    print(f"{'p95 / p50, tornado StaticFileHandler':<44}{tail['tornado']:8.2f}")


def make(folder: Path) -> Tomogram:
    """Give a tomogram of noise."""
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


def strokes(server: ViewServer, tomo: Tomogram) -> None:
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


def list_of_300(server: ViewServer, folder: Path) -> None:
    collection = create_collection(folder / "many")
    small = np.zeros((4, 4, 4), np.int8)
    with collection.add("ts_0000").write(
        "raw", dtype="i1", shape=small.shape, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        writer[:, :, :] = small
    tomograms = collection.path / "tomograms"
    for i in range(1, 300):
        shutil.copytree(tomograms / "ts_0000", tomograms / f"ts_{i:04}")
    site = Site(server, collection)
    took = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        assert site.list_page().count("<article") == 300
        took.append(time.perf_counter() - begin)
    print(f"{'list of 300 tomograms (goal 1 s at most)':<44}{min(took):8.2f} s")


def in_a_browser(server: ViewServer, folder: Path) -> None:
    """Draw dabs, and damage data, before the eyes of a real browser."""
    from browser.driver import browser
    from browser.test_problems_in_browser import DAMAGES
    from browser.test_strokes_in_browser import WATCH_OVERLAY, Hand
    from browser.virion import make_virion

    def missing(part: str, reason: str) -> None:
        raise SystemExit(f"{part}: {reason}")

    with pytest.MonkeyPatch.context() as patch:
        tomo = make_virion(folder / "virion", patch)
    with browser(missing, (900, 700)) as page:
        took = []
        for _ in range(5):
            site = Site(server, tomo.collection)
            hand = Hand(page, site, tomo)
            hand.press("[data-tool=dab]")
            hand.press("[data-class=spikes]")
            page.driver.switch_to.default_content()
            page.driver.execute_script(WATCH_OVERLAY)
            page.driver.switch_to.frame("viewer")
            hand.click((0.0, 0.0))
            page.driver.switch_to.default_content()
            page.wait_for("the overlay", lambda: bool(page.script("window.took.length")))
            took.append(page.script("window.took[0]"))
            site.workspace(tomo.id).undo()
            site.close()
        print(f"{'click to overlay, median (goal 500 ms)':<44}{statistics.median(took):8.0f} ms")
        for name, (damage, error, says) in DAMAGES.items():
            copy = folder / name.replace(" ", "_")
            shutil.copytree(tomo.collection.path, copy)
            damaged = open_collection(copy)[tomo.id]
            damage(damaged.path("view"))
            site = Site(server, damaged.collection)
            begin = time.perf_counter()
            page.open(f"{site.url}show/{tomo.id}?layout=xy")
            problems = site.workspace(tomo.id)
            page.wait_for(
                f"{error.__name__}: {says}",
                lambda s=problems, says=says: any(says in str(p) for p in s.problems),
            )
            seconds = time.perf_counter() - begin
            print(f"{f'page to error, {name} (goal 10 s)':<44}{seconds:8.1f} s")
            site.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as name, view_server() as server:
        folder = Path(name)
        ranges(server, folder)
        tomo = make(folder)
        strokes(server, tomo)
        list_of_300(server, folder)
        if shutil.which("chromium"):
            in_a_browser(server, folder)


if __name__ == "__main__":
    main()
