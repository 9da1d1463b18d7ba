"""Watchers in processes that are killed, over and over; run as a script, reports as JSON.

It imports everything once and forks while it has a single thread, so that a run costs no start-up::

    python watch_harness.py FOLDER points staged:1 pointer-written:2 …
    python watch_harness.py FOLDER kills 30 SEED

It finds the other helpers of the tests by ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import zarr  # noqa: F401  what children would import anew each time

from invariants import broken
from otzi.collection import create_collection, open_collection
from otzi.ledger.sources import read_source_rows
from otzi.ledger.sweep import sweep
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.watch.poll import Poll
from otzi_pipelines.watch.rules import WatchRules

RULES = WatchRules(settle_seconds=0, stall_seconds=0)


def start(source: Path, collection: Path, fail_at: str | None = None) -> int:
    """Give the process id of a child that looks until nothing waits any more."""
    pid = os.fork()
    if pid:
        return pid
    if fail_at:
        os.environ["OTZI_FAIL_AT"] = fail_at
    poll = Poll(open_collection(collection, "r+"), source, RULES)
    while poll().waiting:
        pass
    os._exit(0)


def ended(pid: int) -> int:
    """Give the exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def state(collection: Path, *, is_over: bool = False) -> dict[str, Any]:
    """Give what a reader sees, what the ledger says, and what is wrong with it."""
    digests = {}
    for tomo in open_collection(collection):
        for level in range(tomo.image("raw").n_levels):
            tomo.array("raw", level)
        digests[tomo.id] = tomo.digest("raw")
    rows = read_source_rows(collection)
    sealed = [row.tomogram for row in rows if row.state == "sealed"]
    states = {row.path.name: row.state for row in rows}
    wrong = broken(collection, is_over=is_over)
    return {"digests": digests, "states": states, "sealed": sealed, "wrong": wrong}


def whole(collection: Path, seen: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the state in the end, and what was wrong with it or on the way."""
    found = state(collection, is_over=True)
    return found | {"wrong": sum((before["wrong"] for before in seen), found["wrong"])}


def crash_points(source: Path, folder: Path, points: list[str]) -> list[dict[str, Any]]:
    """Kill at each point, look, then run again to the end."""
    rows = []
    for number, point in enumerate(points):
        path = create_collection(folder / str(number)).path
        assert isinstance(path, Path)
        row: dict[str, Any] = {"point": point, "killed": ended(start(source, path, point))}
        row["seen"] = state(path)
        row["code"] = ended(start(source, path))
        sweep(path)  # killed after the pointer, a run leaves its journal
        rows.append(row | whole(path, [row["seen"]]))
    return rows


def random_kills(source: Path, folder: Path, n_kills: int, seed: int) -> list[dict[str, Any]]:
    """Kill at random moments until so many runs were killed; every round ends with a whole run."""
    rng = random.Random(seed)
    path = create_collection(folder / "unbroken").path
    begun = time.monotonic()
    ended(start(source, path))
    seconds = time.monotonic() - begun
    rows: list[dict[str, Any]] = []
    kills = 0
    while kills < n_kills:
        path = create_collection(folder / str(len(rows))).path
        assert isinstance(path, Path)
        row: dict[str, Any] = {"kills": 0, "seen": []}
        code = -1
        while code:
            pid = start(source, path)
            if kills < n_kills and row["kills"] < 8:
                time.sleep(rng.uniform(0, seconds))
                os.kill(pid, signal.SIGKILL)
            code = ended(pid)
            row["seen"].append(state(path))
            kills += code != 0
            row["kills"] += code != 0
        sweep(path)
        rows.append(row | whole(path, row["seen"]))
    return rows


def main() -> None:
    """Run what the arguments say and print the rows."""
    folder, what, *words = Path(sys.argv[1]), *sys.argv[2:]
    source = folder / "in"
    ingest(folder / "warm", [source / "warm.mrc"])
    if what == "points":
        rows = crash_points(source, folder, words)
    else:
        rows = random_kills(source, folder, int(words[0]), int(words[1]))
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
