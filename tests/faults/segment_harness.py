"""Segmentations in processes that are killed, over and over; run as a script, reports as JSON.

It imports everything once and forks while it has a single thread, so that a run costs no start-up::

    python segment_harness.py COLLECTION MODEL FOLDER points staged:1 shard-renamed:3 …
    python segment_harness.py COLLECTION MODEL FOLDER kills 30 SEED

Every round begins with a copy of the collection.

It finds the other helpers of the tests by ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariants import broken
from otzi.collection import open_collection
from otzi.ledger.sweep import sweep
from otzi.networks.weights import load_model
from otzi.tiles.infer import TorchModel
from otzi_pipelines.segment.segmentation import segment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TILES: dict[str, Any] = {"tile": 88, "overlap": 16, "workers": 2}


def start(collection: Path, model: TorchModel, fail_at: str | None = None) -> int:
    """Give the process id of a child that segments and counts the tiles that it infers."""
    count = collection.with_suffix(".tiles")
    count.write_bytes(b"")
    pid = os.fork()
    if pid:
        return pid
    if fail_at:
        os.environ["OTZI_FAIL_AT"] = fail_at
    infer = TorchModel.__call__

    def counted(self: TorchModel, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        with count.open("ab", buffering=0) as file:
            file.write(b"." * len(tiles))
        return infer(self, tiles)

    TorchModel.__call__ = counted  # type: ignore[method-assign]
    segment(open_collection(collection, "r+")["ts_001"], model, name="net", **TILES)
    os._exit(0)


def ended(pid: int) -> int:
    """Give the exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def recorded(collection: Path) -> list[str]:
    """Give the shards that the journal of an interrupted run holds."""
    journals = (collection / ".staging").glob("*probs.net.journal")
    rows = [row for path in journals for row in path.read_text().splitlines()[1:]]
    return [json.loads(row)["key"] for row in rows]


def state(collection: Path, *, is_over: bool = False) -> dict[str, Any]:
    """Give what a reader sees, what is wrong with it, how many tiles the last run inferred."""
    tomo = open_collection(collection)["ts_001"]
    products = [name for name in ("probs/net", "ramps/net") if tomo.has(name)]
    return {
        "digests": {product: tomo.digest(product) for product in products},
        "tiles": collection.with_suffix(".tiles").stat().st_size,
        "wrong": broken(collection, is_over=is_over),
    }


def whole(collection: Path, wrong: list[str]) -> dict[str, Any]:
    """Give the state in the end, and what was wrong with it or on the way."""
    found = state(collection, is_over=True)
    return found | {"wrong": wrong + found["wrong"]}


def crash_points(
    source: Path, model: TorchModel, folder: Path, points: list[str]
) -> list[dict[str, Any]]:
    """Kill at each point, look, then run again to the end."""
    rows = []
    for number, point in enumerate(points):
        path = shutil.copytree(source, folder / str(number))
        killed = ended(start(path, model, point))
        row = {"point": point, "killed": killed, "recorded": recorded(path)}
        seen = state(path)
        row["seen"] = seen["digests"]
        row["code"] = ended(start(path, model))
        sweep(path)  # killed after the pointer, a run leaves its journal
        rows.append(row | whole(path, seen["wrong"]))
    return rows


def random_kills(
    source: Path, model: TorchModel, folder: Path, n_kills: int, seed: int
) -> list[dict[str, Any]]:
    """Kill at random moments until so many runs were killed; every round ends with a whole run."""
    rng = random.Random(seed)
    begun = time.monotonic()
    ended(start(shutil.copytree(source, folder / "timed"), model))
    seconds = time.monotonic() - begun
    rows: list[dict[str, Any]] = []
    kills = 0
    while kills < n_kills:
        path = shutil.copytree(source, folder / str(len(rows)))
        row: dict[str, Any] = {"kills": 0, "staged": 0, "seen": []}
        wrong: list[str] = []
        while True:
            pid = start(path, model)
            if kills < n_kills and row["kills"] < 8:
                time.sleep(rng.uniform(0, seconds))
                os.kill(pid, signal.SIGKILL)
            if ended(pid) == 0:
                break
            kills += 1
            row["kills"] += 1
            row["staged"] += bool(recorded(path))
            seen = state(path)
            row["seen"].append(seen["digests"])
            wrong += seen["wrong"]
        sweep(path)
        rows.append(row | whole(path, wrong))
    return rows


def main() -> None:
    """Run what the arguments say and print the rows."""
    source, model, folder, what, *words = sys.argv[1:]
    network = load_model(model, device="cpu", threads=1)
    # What every child would import and compile anew; its threads end with it.
    warm = shutil.copytree(source, Path(folder) / "warm")
    segment(open_collection(warm, "r+")["ts_001"], network, name="net", **TILES)
    if what == "points":
        rows = crash_points(Path(source), network, Path(folder), words)
    else:
        rows = random_kills(Path(source), network, Path(folder), int(words[0]), int(words[1]))
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
