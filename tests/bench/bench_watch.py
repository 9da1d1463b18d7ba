"""Watching: CPU for each volume, for a run that finds nothing new, for a look at many files.

And the time from the moment at which a file is complete to the one at which its tomogram is seen,
beside the settling, the interval of the polls and the conversion, which it is made of.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from otzi.collection import create_collection, open_collection
from otzi.events import ignore
from otzi.ledger.sources import FileState, SourceRow, Sources
from otzi.ledger.sqlite import open_catalog
from otzi.stopping import Stop
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.watch.clock import now
from otzi_pipelines.watch.loop import Watch
from otzi_pipelines.watch.notify import Notifier
from otzi_pipelines.watch.poll import Poll
from otzi_pipelines.watch.rules import WatchRules
from watching import volume_bytes

RULES = WatchRules(settle_seconds=0, stall_seconds=1)


def volumes(folder: Path, n_files: int) -> None:
    """CPU of watching, looks included, beside that of `otzi ingest` of the same files."""
    source = folder / "in"
    source.mkdir()
    for number in range(n_files):
        (source / f"ts_{number:03}.mrc").write_bytes(volume_bytes(number, (16, 24, 20)))
    warm = sorted(source.iterdir())[:1]
    ingest(folder / "warm", warm)
    begun = time.process_time()
    ingest(folder / "by_hand", [source])
    by_hand = time.process_time() - begun
    poll = Poll(create_collection(folder / "watched"), source, RULES)
    begun = time.process_time()
    poll()
    report = poll()
    watched = time.process_time() - begun
    assert len(report.sealed) == n_files
    begun, wall = time.process_time(), time.perf_counter()
    report = poll()
    again, again_wall = time.process_time() - begun, time.perf_counter() - wall
    assert not report.did_something
    print(f"{n_files} volumes of 15 kB            ms CPU each")
    print(f"  otzi ingest                {1e3 * by_hand / n_files:8.1f}")
    print(f"  otzi watch                 {1e3 * watched / n_files:8.1f}   goal 50")
    print(f"  nothing new, in all        {1e3 * again:8.1f}   {again_wall:.3f} s, goal 0.5 s")


def many(folder: Path, n_files: int) -> None:
    """CPU of a look at a folder where all is done."""
    source = folder / "many"
    source.mkdir()
    col = create_collection(folder / "many_c")
    with open_catalog(col.workspace) as catalog, catalog.transaction():
        sources = Sources(catalog)
        for number in range(n_files):
            path = source / f"{number % 50}" / f"ts_{number:05}.mrc"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
            file = FileState.of(path.stat())
            row = SourceRow(path, source, "sealed", file, now(), tomogram=f"ts_{number:05}")
            sources.put(replace(row, sha256="0" * 64))
    poll = Poll(col, source, WatchRules())
    times = []
    for _ in range(7):
        begun = time.process_time()
        assert not poll().did_something
        times.append(time.process_time() - begun)
    share = median(times) / 30
    print(f"a look at {n_files} files            {1e3 * median(times):8.1f} ms CPU")
    print(f"  every 30 s                 {100 * share:8.2f} % of a core, goal 1 %")


def latency(folder: Path, every_seconds: float, settle_seconds: float) -> None:
    """Seconds from complete to seen, for files that are complete at any moment."""
    source = folder / "latency"
    source.mkdir()
    col = create_collection(folder / "latency_c")
    rules = WatchRules(settle_seconds=settle_seconds)
    watch = Watch(Poll(col, source, rules), Notifier(None, "c", "in"))
    stop = Stop()
    polls = threading.Thread(target=lambda: list(watch.forever(every_seconds, stop, ignore)))
    polls.start()
    found = []
    for number in range(5):
        time.sleep(0.37 * every_seconds)
        id_ = f"ts_{number}"
        (source / f"{id_}.mrc").write_bytes(volume_bytes(number, (64, 128, 128)))
        begun = time.perf_counter()
        while id_ not in open_collection(col.path):
            time.sleep(0.01)
        found.append(time.perf_counter() - begun)
    stop.asked.set()
    polls.join()
    bound = every_seconds + settle_seconds + 2
    print(f"complete to seen, polls every {every_seconds:g} s, settle {settle_seconds:g} s")
    print(f"  median {median(found):.2f} s, worst {max(found):.2f} s, goal {bound:g} s + convert")


def main() -> None:
    """Run all, or with fewer files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=300)
    parser.add_argument("--files", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volumes(folder, arguments.volumes)
        many(folder, arguments.files)
        latency(folder, 2, 1)


if __name__ == "__main__":
    main()
