"""A night of acquisitions: 300 files, of which some are spoiled, some come twice, some slowly."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mrc_files import mrc_bytes
from otzi.collection import create_collection
from otzi.ledger.audit import audit
from otzi.ledger.sources import FileState, SourceRow, Sources, read_source_rows
from otzi.ledger.sqlite import ledger_path, open_catalog
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.watch.clock import now
from otzi_pipelines.watch.poll import Poll
from otzi_pipelines.watch.rules import WatchRules
from watching import ARRIVALS, FakeClock, volume_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

N_FILES, N_BAD, N_TWINS, N_SLOW = 300, 5, 5, 5
MOST_CPU_SECONDS = 0.05  # for each volume, looks included


def _bad() -> Iterator[bytes]:
    good = volume_bytes(9999)
    yield good[:-100]
    yield good + b"trailing"
    yield mrc_bytes(np.ones((4, 5, 6), np.int16), mode=99)
    yield mrc_bytes(np.full((4, 5, 6), np.nan, np.float32))
    yield b"no tomogram at all " * 200


def test_300_files_and_each_comes_to_its_end(tmp_path: Path) -> None:
    """They come in five batches, half a minute apart, while some of them grow all the while."""
    ingest(tmp_path / "warm", [_written(tmp_path / "warm.mrc", volume_bytes(0))])
    folder = tmp_path / "in"
    folder.mkdir()
    n_good = N_FILES - N_BAD - N_TWINS
    names = {f"ts_{number:03}.mrc": volume_bytes(number) for number in range(n_good)}
    slow = dict(list(names.items())[:N_SLOW])
    quick = [(name, data) for name, data in names.items() if name not in slow]
    quick += [(f"bad_{number}.mrc", data) for number, data in enumerate(_bad())]
    random.Random(0).shuffle(quick)
    quick += [(f"twin_{number}.mrc", volume_bytes(100 + number)) for number in range(N_TWINS)]
    ways = list(ARRIVALS.values())
    growing = [
        way(folder / name, data, 8)
        for way, (name, data) in zip(ways * 2, slow.items(), strict=False)
    ]
    col, clock = create_collection(tmp_path / "c"), FakeClock()
    poll = Poll(col, folder, WatchRules(), clock=clock)
    cpu_seconds = 0.0
    for number in range(60):
        for name, data in quick[number * 60 : (number + 1) * 60]:
            _written(folder / name, data)
        for way in growing:
            next(way, None)
        clock.advance(20)
        begun = time.process_time()
        poll()
        cpu_seconds += time.process_time() - begun
    states = [row.state for row in read_source_rows(col.workspace)]
    assert len(states) == N_FILES
    counts = {state: states.count(state) for state in set(states)}
    assert counts == {"sealed": n_good, "quarantined": N_BAD, "duplicate": N_TWINS}
    assert len(col) == n_good
    assert cpu_seconds / N_FILES < MOST_CPU_SECONDS
    assert audit(col.workspace, is_fast=True).findings == []
    before = ledger_path(col.workspace).read_bytes()
    begun = time.process_time()
    report = poll(listen=lambda event: pytest.fail(f"work was begun: {event}"))
    assert time.process_time() - begun < 0.5
    assert not report.did_something
    assert ledger_path(col.workspace).read_bytes() == before


def test_a_look_at_5000_files_costs_little(tmp_path: Path) -> None:
    """A hundredth of a core, if there is one every half a minute."""
    folder = tmp_path / "in"
    col = create_collection(tmp_path / "c")
    with open_catalog(col.workspace) as catalog, catalog.transaction():
        for number in range(5000):
            path = _written(folder / f"{number % 50}" / f"ts_{number}.mrc", b"x")
            file = FileState.of(path.stat())
            row = SourceRow(path, folder, "sealed", file, now(), tomogram=path.stem)
            Sources(catalog).put(row)
    poll = Poll(col, folder, WatchRules())
    times = []
    for _ in range(5):
        begun = time.process_time()
        assert not poll().did_something
        times.append(time.process_time() - begun)
    # The best of them: others may be at work on the same core.
    assert min(times) < 0.01 * 30


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
