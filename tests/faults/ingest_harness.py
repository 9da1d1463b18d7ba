"""Ingests in processes that are killed, over and over; run as a script, reports as JSON.

It imports everything once and forks while it has a single thread, so that a run costs no start-up::

    python ingest_harness.py SOURCE FOLDER points staged:1 shard-renamed:3 …
    python ingest_harness.py SOURCE FOLDER kills 30 SEED

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
from otzi.ledger.sweep import sweep
from otzi.store.journal import Journal
from otzi_pipelines.ingest.batch import ingest


def start(source: Path, collection: Path, fail_at: str | None = None) -> int:
    """Give the process id of a child that ingests and says how many shards it wrote."""
    pid = os.fork()
    if pid:
        return pid
    if fail_at:
        os.environ["OTZI_FAIL_AT"] = fail_at
    written = 0
    add = Journal.add

    def count(journal: Journal, record: Any) -> None:
        nonlocal written
        written += 1
        add(journal, record)

    Journal.add = count  # type: ignore[method-assign]
    code = ingest(open_collection(collection, "r+"), [source]).exit_code
    (collection.parent / f"{collection.name}.written").write_text(str(written))
    os._exit(code)


def ended(pid: int) -> int:
    """Give the exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def recorded(collection: Path) -> int:
    """Give how many shards the journal of an interrupted run holds."""
    journals = list((collection / ".staging").glob("*.journal"))
    return sum(len(path.read_text().splitlines()) - 1 for path in journals)


def wait_for_shards(pid: int, collection: Path, n_shards: int) -> int | None:
    """Wait until so many shards are recorded; give the exit code if the child ends before."""
    while recorded(collection) < n_shards:
        if (done := os.waitpid(pid, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(done[1])
        time.sleep(0.001)
    return None


def state(collection: Path, *, is_over: bool = False) -> dict[str, Any]:
    """Give what a reader sees, and what is wrong with it."""
    digests = {}
    for tomo in open_collection(collection):
        for level in range(tomo.image("raw").n_levels):
            tomo.array("raw", level)
        digests[tomo.id] = tomo.digest("raw")
    return {"digests": digests, "wrong": broken(collection, is_over=is_over)}


def whole(collection: Path, wrong: list[str]) -> dict[str, Any]:
    """Give the state in the end, and what was wrong with it or on the way."""
    found = state(collection, is_over=True)
    return found | {"wrong": wrong + found["wrong"]}


def crash_points(source: Path, folder: Path, points: list[str]) -> list[dict[str, Any]]:
    """Kill at each point, look, then run again to the end."""
    rows = []
    for number, point in enumerate(points):
        path = create_collection(folder / str(number)).path
        killed = ended(start(source, path, point))
        row = {"point": point, "killed": killed, "recorded": recorded(path)}
        seen = state(path)
        row["seen"] = seen["digests"]
        row["code"] = ended(start(source, path))
        row["written"] = int((folder / f"{number}.written").read_text())
        sweep(path)  # killed after the pointer, a run leaves its journal
        rows.append(row | whole(path, seen["wrong"]))
    return rows


def random_kills(source: Path, folder: Path, n_kills: int, seed: int) -> list[dict[str, Any]]:
    """Kill at random moments until so many runs were killed; every round ends with a whole run."""
    rng = random.Random(seed)
    begun = time.monotonic()
    ended(start(source, create_collection(folder / "unbroken").path))
    seconds = time.monotonic() - begun
    rows: list[dict[str, Any]] = []
    kills = 0
    while kills < n_kills:
        path = create_collection(folder / str(len(rows))).path
        row: dict[str, Any] = {"kills": 0, "staged": 0, "seen": []}
        wrong: list[str] = []
        while True:
            pid = start(source, path)
            code = None
            if kills < n_kills and row["kills"] < 8:
                # Any moment, and as often one amid the shards, however slow the machine is.
                n_shards = kills % 2 * rng.randint(1, 9)
                code = wait_for_shards(pid, path, n_shards)
                if code is None:
                    time.sleep(rng.uniform(0, seconds if n_shards == 0 else seconds / 20))
                    os.kill(pid, signal.SIGKILL)
            if code is None:
                code = ended(pid)
            seen = state(path)
            row["seen"].append(list(seen["digests"].values()))
            wrong += seen["wrong"]
            if code == 0:
                break
            kills += 1
            row["kills"] += 1
            row["staged"] += recorded(path) > 0
        sweep(path)
        rows.append(row | whole(path, wrong))
    return rows


def main() -> None:
    """Run what the arguments say and print the rows."""
    source, folder, what, *words = sys.argv[1:]
    if what == "points":
        rows = crash_points(Path(source), Path(folder), words)
    else:
        rows = random_kills(Path(source), Path(folder), int(words[0]), int(words[1]))
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
