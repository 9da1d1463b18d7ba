"""Runs of a pipeline in processes that are killed, over and over; a script, reports as JSON.

It imports everything once and forks while it has a single thread, so that a run costs no start-up::

    python run_harness.py SOURCES FOLDER points stage-claimed:1 shard-renamed:3 …
    python run_harness.py SOURCES FOLDER kills 30 SEED

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

import otzi_pipelines.ingest.batch
import otzi_pipelines.view_product  # noqa: F401  likewise
from invariants import broken, published
from otzi.ledger.stages import MOST_DEATHS, read_stages
from otzi_pipelines.run.coordinator import run_collection
from otzi_pipelines.run.pipeline import Pipeline, read_pipeline

MOST_KILLS_OF_A_ROUND = MOST_DEATHS - 1  # after more the stage is blamed


def stages(sources: Path) -> Pipeline:
    """Give a pipeline that is soon done, whose coordinators are soon taken for dead."""
    document = {
        "run": {"volumes": 2, "lease_seconds": 1, "backoff_seconds": 0.01, "workers": 2},
        "stage": [{"stage": "ingest", "sources": [str(sources)]}, {"stage": "view"}],
    }
    return read_pipeline(document, sources / "pipeline.toml")


def start(sources: Path, collection: Path, fail_at: str | None = None) -> int:
    """Give the process id of a child that runs the pipeline."""
    pid = os.fork()
    if pid:
        return pid
    if fail_at:
        os.environ["OTZI_FAIL_AT"] = fail_at
    code = 1
    try:
        code = run_collection(collection, stages(sources)).exit_code
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Give the exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def state(collection: Path, *, is_over: bool = False) -> dict[str, Any]:
    """Give what a reader sees, and what is wrong with it.

    Until all is over the rows of products may be behind the tree: the next run brings them up.
    """
    rows = [
        (f"{row.tomogram}/{product}", row.state, row.output_digest)
        for row in read_stages(collection)
        for product in [{"ingest": "raw"}.get(row.stage, row.stage)]
    ]
    staging = (collection / ".staging").glob("*")
    litter = [path.name for path in staging if path.suffix != ".lock"]
    wrong = broken(collection, is_over=is_over)
    return {"digests": published(collection), "wrong": wrong, "litter": litter, "rows": rows}


def crash_points(sources: Path, folder: Path, points: list[str]) -> list[dict[str, Any]]:
    """Kill at each point, look, then run again to the end."""
    rows = []
    for number, point in enumerate(points):
        path = folder / str(number)
        row: dict[str, Any] = {"point": point, "killed": ended(start(sources, path, point))}
        row["seen"] = state(path)
        row["code"] = ended(start(sources, path))
        rows.append(row | state(path, is_over=True))
    return rows


def random_kills(sources: Path, folder: Path, n_kills: int, seed: int) -> list[dict[str, Any]]:
    """Kill at random moments until so many runs were killed; every round ends with a whole run."""
    rng = random.Random(seed)
    begun = time.monotonic()
    ended(start(sources, folder / "unbroken"))
    seconds = time.monotonic() - begun
    rows: list[dict[str, Any]] = []
    kills = 0
    while kills < n_kills:
        path = folder / str(len(rows))
        row: dict[str, Any] = {"kills": 0, "staged": 0, "wrong": [], "seen": []}
        code: int | None = None
        while code is None or code < 0:
            pid = start(sources, path)
            if kills < n_kills and row["kills"] < MOST_KILLS_OF_A_ROUND:
                time.sleep(rng.uniform(0, seconds))
                os.kill(pid, signal.SIGKILL)
            code = ended(pid)
            found = state(path, is_over=code >= 0)
            row["wrong"] += found["wrong"]
            row["seen"].append(len(found["digests"]))
            if code < 0:
                kills += 1
                row["kills"] += 1
                row["staged"] += bool(found["litter"])
        rows.append(row | {"code": code} | {k: v for k, v in found.items() if k != "wrong"})
    return rows


def main() -> None:
    """Run what the arguments say and print the rows."""
    sources, folder, what, *words = sys.argv[1:]
    if what == "points":
        rows = crash_points(Path(sources), Path(folder), words)
    else:
        rows = random_kills(Path(sources), Path(folder), int(words[0]), int(words[1]))
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
