"""Whose turn it is: a few tomograms at a time, each stage after stage, until all are settled.

Tomograms are finished one after another rather than stage by stage, so that the first is soon
there, and no more than a few are half done.
"""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from otzi.errors import Locked, Stopped, TemporaryFailure
from otzi.ledger.staging import staged_work
from otzi.ledger.sweep import sweep_staging
from otzi_pipelines.run.in_order import InOrder
from otzi_pipelines.run.progress import Wanted
from otzi_pipelines.run.stages import missing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from threading import Event as Flag

    from otzi.execute import Executor
    from otzi_pipelines.run.pipeline import Pipeline
    from otzi_pipelines.run.stage_worker import StageWorker
    from otzi_pipelines.run.volume import Volume

__all__ = ["Outcome", "Turns"]

_TICK_SECONDS = 0.2
_ABANDON_SECONDS = 10.0
_SOME_QUARANTINED = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    quarantined: tuple[tuple[str, str, str], ...]
    """Tomogram, stage and reason."""
    n_left: int
    """Stages of tomograms that are not settled."""
    has_stalled: bool = False
    n_hung: int = 0
    """Tomograms whose stage did not end when it was to be abandoned; they hold no lease."""

    @property
    def exit_code(self) -> int:
        """Of the command line."""
        if self.has_stalled:
            return TemporaryFailure.exit_code
        if self.n_left:
            return Stopped.exit_code
        return _SOME_QUARANTINED if self.quarantined else 0


class Turns:
    """Brings tomograms through the stages of a pipeline.

    Parameters
    ----------
    pipeline
        Their stages.
    worker
        What settles them.
    workspace
        The folder in which products are made.
    stop
        Set from outside to end the run: what is soon done may be, all else is abandoned.
    """

    def __init__(
        self, pipeline: Pipeline, worker: StageWorker, workspace: Path, stop: Flag
    ) -> None:
        self._pipeline = pipeline
        self._workspace = workspace
        self._worker = worker
        self._stop = stop
        self._n_wanted = 0
        self._ingests = InOrder()

    def settle_known(self, volumes: Sequence[Volume]) -> list[Volume]:
        """Settle the tomograms that need no work; give those that do."""
        wanted = dict.fromkeys((stage.key for stage in self._pipeline.stages), 0)
        for volume in volumes:
            for stage in self._pipeline.stages_of(volume):
                wanted[stage.key] += 1
        self._n_wanted = sum(wanted.values())
        self._worker.say(Wanted(len(volumes), wanted))
        return [volume for volume in volumes if not self._settle_known(volume)]

    def _settle_known(self, volume: Volume) -> bool:
        stages = self._pipeline.stages_of(volume)
        return all(self._worker.settle_known(volume, stage) for stage in stages)

    def run(self, volumes: Sequence[Volume], executor: Executor) -> Outcome:
        """Bring tomograms through their stages; give what came of it.

        Raises
        ------
        OutOfSpace, AccessDenied, DeviceUnavailable
            For what concerns every tomogram; all leases are given back.
        """
        settings, worker = self._pipeline.settings, self._worker
        turns = [(0.0, n, volume) for n, volume in enumerate(volumes)]
        running: dict[Future[float | None], tuple[int, Volume]] = {}
        pool = ThreadPoolExecutor(settings.volumes, thread_name_prefix="volume")
        renewed = stopped = time.monotonic()
        try:
            while turns or running:
                now = time.monotonic()
                if not self._stop.is_set():
                    stopped = now
                    while turns and turns[0][0] <= now and len(running) < settings.volumes:
                        _, n, volume = heappop(turns)
                        if self._pipeline.ingest and volume.source:
                            self._ingests.announce(n)
                        running[pool.submit(self._bring, volume, executor, n)] = (n, volume)
                elif not running or now > stopped + settings.finish_seconds:
                    break
                for future in self._some_done(running):
                    n, volume = running.pop(future)
                    if (seconds := future.result()) is not None:
                        heappush(turns, (time.monotonic() + seconds, n, volume))
                if now > renewed + settings.lease_seconds / 4:
                    renewed = now
                    worker.renew()
                worker.has_stalled = bool(running) and worker.watchdog.has_stalled(now)
                if worker.has_stalled:
                    break
        finally:
            worker.is_over.set()
            if worker.has_stalled:
                executor.close()
            pool.shutdown(wait=False, cancel_futures=True)
            hung = wait(running, _ABANDON_SECONDS).not_done
            worker.give_back()
        return self.outcome(n_hung=len(hung))

    def tidy(self, volumes: Sequence[Volume]) -> None:
        """Remove what runs that were killed, and this one, leave of what is settled."""
        settled, ledger = self._worker.settled, self._worker.ledger
        announced = [(r.tomogram, r.stage) for r in ledger.rows() if not r.input_digest]
        if waiting := [key for key in announced if settled.get(key) == "waiting"]:
            ledger.withdraw(waiting)
        staged = {work.target for work in staged_work(self._workspace)}
        for volume in volumes if staged else ():
            for stage in self._pipeline.stages_of(volume):
                product = (volume.id, stage.makes or "")
                if product in staged and settled.get((volume.id, stage.key)) == "done":
                    with suppress(Locked):
                        sweep_staging(self._workspace, *product)

    def outcome(self, n_hung: int = 0) -> Outcome:
        """Give what the run has come to."""
        quarantined = sorted(self._worker.quarantined.items())
        return Outcome(
            tuple((*key, reason) for key, reason in quarantined),
            self._n_wanted - len(self._worker.settled),
            self._worker.has_stalled,
            n_hung,
        )

    def _some_done(
        self, running: dict[Future[float | None], tuple[int, Volume]]
    ) -> set[Future[float | None]]:
        """Wait a moment; give what is done then."""
        if running:
            return wait(running, _TICK_SECONDS, FIRST_COMPLETED).done
        self._worker.watchdog.idle(time.monotonic())
        self._stop.wait(_TICK_SECONDS)
        return set()

    def _bring(self, volume: Volume, executor: Executor, n: int) -> float | None:
        """Bring a tomogram as far as can be; give after how many seconds to look again, or None."""
        volume.look()  # others may have come on with it since it was found
        waits: list[float] = []
        for stage in self._pipeline.stages_of(volume):
            if waits and missing(stage, volume):
                continue  # for what may still be made
            # Of files with the same bytes the first is taken, whichever is read more quickly.
            in_order = stage is self._pipeline.ingest
            with self._ingests.turn(n, self._is_over) if in_order else nullcontext():
                if self._is_over():
                    break
                if not self._worker.settle_known(volume, stage):
                    seconds = self._worker.claim(volume, stage, executor, priority=-n)
                    waits += [] if seconds is None else [seconds]
        return min(waits, default=None)

    def _is_over(self) -> bool:
        return self._stop.is_set() or self._worker.is_over.is_set()
