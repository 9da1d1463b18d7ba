"""Trainings in processes that are killed; run as a script, reports as JSON.

It imports everything once and forks while it has a single thread, so that a run costs no start-up::

    python train_harness.py COLLECTION FOLDER SETTINGS STEP…

A training goes through in ``FOLDER/whole``. One in ``FOLDER/broken`` is killed a moment after each
of the steps, counted from where it goes on, and then goes through.
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

import torch.utils.tensorboard  # noqa: F401  what children would import anew each time

import otzi_pipelines.train.loop  # noqa: F401
from otzi.collection import open_collection
from otzi.events import Advanced, Event
from otzi_pipelines.train.settings import AugmentationSettings, TrainSettings
from otzi_pipelines.train.training import train


def start(collection: Path, model: Path, settings: TrainSettings) -> tuple[int, int]:
    """Give the process id of a child that trains, and where a byte comes for each of its steps."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading

    def tell(event: Event) -> None:
        if isinstance(event, Advanced):
            os.write(writing, b".")

    train(
        open_collection(collection),
        labels="net",
        model=model,
        settings=settings,
        device="cpu",
        threads=1,
        listen=tell,
    )
    os._exit(0)


def ended(pid: int) -> int:
    """Give the exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(pid: int, reading: int, step: int, later_seconds: float) -> dict[str, Any]:
    """Kill a child a moment after a step; give its exit code and the steps it has taken."""
    taken = 0
    while taken < step and os.read(reading, 1):
        taken += 1
    time.sleep(later_seconds)
    os.kill(pid, signal.SIGKILL)
    code = ended(pid)
    while os.read(reading, 1):
        taken += 1
    os.close(reading)
    return {"code": code, "taken": taken}


def main() -> None:
    """Run what the arguments say and print what became of each process."""
    collection, folder, fields, *steps = sys.argv[1:]
    settings = json.loads(fields)
    augmentation = AugmentationSettings(**settings.pop("augmentation"))
    settings = TrainSettings(**settings, augmentation=augmentation)
    whole, broken = Path(folder, "whole"), Path(folder, "broken")
    rng = random.Random(0)
    report: dict[str, Any] = {"whole": ended(start(Path(collection), whole, settings)[0])}
    report["killed"] = []
    for step in map(int, steps):
        pid, reading = start(Path(collection), broken, settings)
        row = killed_at(pid, reading, step, rng.uniform(0, 0.05))
        report["killed"].append(row | {"made": (broken / "model.json").exists()})
    report["broken"] = ended(start(Path(collection), broken, settings)[0])
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
