"""One stage of one tomogram at a time: claimed, run under its lease, and kept in the ledger.

Whatever a kill leaves behind follows again from the ledger and from what is published: a stage that
was published and not committed finds itself made, and is committed.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from threading import Event as Flag
from threading import Lock
from typing import TYPE_CHECKING

from otzi.errors import (
    AccessDenied,
    DeviceUnavailable,
    OtziError,
    OutOfSpace,
    Stopped,
    TemporaryFailure,
)
from otzi.events import Advanced, Noted, Started, Warned
from otzi.ledger.stages import Lease
from otzi.memory import parse_bytes
from otzi.store.crashpoints import reach
from otzi_pipelines.run.progress import Began, Ended, Moved, Settled
from otzi_pipelines.run.stages import Work, input_digest, missing
from otzi_pipelines.run.watchdog import Watchdog

if TYPE_CHECKING:
    from otzi.events import Event, Listener
    from otzi.execute import Executor
    from otzi.ledger.stages import StageLedger, StageRow
    from otzi_pipelines.run.pipeline import RunSettings
    from otzi_pipelines.run.progress import RunEvent, RunListener, SettledState
    from otzi_pipelines.run.stages import Stage
    from otzi_pipelines.run.volume import Volume

__all__ = ["StageWorker", "known_state"]

_FATAL = (OutOfSpace, AccessDenied, DeviceUnavailable)
"""What concerns the machine, and so every tomogram: raised, with the lease given back."""
_LOOK_AGAIN_SECONDS = 5.0
"""At what others hold, who may be done long before their lease is over."""
_MOST_BACKOFF_SECONDS = 600.0
_STALLED = "it stalled"


def known_state(volume: Volume, stage: Stage, row: StageRow | None) -> SettledState | None:
    """Give what the ledger's row and the tree say of a stage; None where there is work to do."""
    if missing(stage, volume):
        return "waiting"
    if row is None or row.input_digest != input_digest(stage, volume):
        return None
    if row.state == "quarantined":
        return "quarantined"
    is_made = row.output_digest == (stage.made_digest(volume) or "")
    return "done" if row.state == "committed" and is_made else None


@dataclass
class StageWorker:
    """Settles stages of tomograms, from any number of threads."""

    settings: RunSettings
    ledger: StageLedger
    owner: str
    """What its leases are under."""
    listen: Listener
    """Told what the stages tell, their steps named with the tomogram; one call at a time."""
    tell: RunListener
    """Told how the run comes on; likewise."""
    chance: random.Random = field(default_factory=random.Random)
    settled: dict[tuple[str, str], SettledState] = field(default_factory=dict)
    """By tomogram and stage."""
    quarantined: dict[tuple[str, str], str] = field(default_factory=dict)
    """The reasons, likewise."""
    is_over: Flag = field(default_factory=Flag)
    """Set when whatever still runs is to be abandoned."""
    has_stalled: bool = False
    """Set before the executor is closed because nothing comes on."""

    def __post_init__(self) -> None:
        self._rows = {(row.tomogram, row.stage): row for row in self.ledger.rows()}
        self._leases: set[Lease] = set()
        self._lost: set[Lease] = set()
        self._telling = Lock()
        self.watchdog = Watchdog(self.settings.stall_seconds, time.monotonic())

    def say(self, event: RunEvent) -> None:
        """Tell how the run comes on."""
        with self._telling:
            self.tell(event)

    def settle_known(self, volume: Volume, stage: Stage) -> bool:
        """Settle a stage of which the ledger and the tree say all; tell whether they do."""
        row = self._rows.get((volume.id, stage.key))
        state = known_state(volume, stage, row)
        if state is None:
            return False
        if state == "quarantined" and row is not None:
            self._quarantine(volume, stage, row.error or "")
        else:
            self._settle(volume, stage, state)
        return True

    def claim(
        self, volume: Volume, stage: Stage, executor: Executor, priority: int
    ) -> float | None:
        """Run a stage, if it may be; give after how many seconds to look again, None if settled.

        Raises
        ------
        OutOfSpace, AccessDenied, DeviceUnavailable
            For what concerns every tomogram.
        """
        claimed = self._claimed(volume, stage)
        if not isinstance(claimed, Lease) and claimed.state == "committed":
            volume.look()  # others may have published it since
            made = stage.made_digest(volume) or ""
            if claimed.output_digest == made:
                self._settle(volume, stage, "done")
                return None
            claimed = self._claimed(volume, stage, made)
        if isinstance(claimed, Lease):
            return self._work(volume, stage, claimed, executor, priority)
        if claimed.state == "quarantined":
            self._quarantine(volume, stage, claimed.error or "")
            return None
        return min(claimed.wait_seconds or 0.0, _LOOK_AGAIN_SECONDS)

    def _claimed(
        self, volume: Volume, stage: Stage, output_digest: str | None = None
    ) -> Lease | StageRow:
        return self.ledger.claim(
            volume.id,
            stage.key,
            input_digest(stage, volume),
            output_digest,
            owner=self.owner,
            lease_seconds=self.settings.lease_seconds,
        )

    def renew(self) -> None:
        """Keep the leases; whoever works under one that is lost is to abandon it."""
        held = list(self._leases)
        try:
            self._lost |= self.ledger.renew(held, self.settings.lease_seconds)
        except TemporaryFailure as error:
            self._warn(f"the leases are not renewed: {error}")

    def give_back(self) -> None:
        """Give back the leases of what does not end; a stage that stalled has failed."""
        for lease in list(self._leases):
            if self.has_stalled:
                self.ledger.fail(lease, _STALLED, self._backoff_seconds(lease))
            else:
                self.ledger.release(lease)

    def _work(
        self, volume: Volume, stage: Stage, lease: Lease, executor: Executor, priority: int
    ) -> float | None:
        reach("stage-claimed")
        self._leases.add(lease)
        self.say(Began(volume.id, stage.key, lease.attempt))
        began = time.monotonic()
        try:
            was_to_do = stage.run(volume, self._work_of(lease, executor, priority))
            seconds = time.monotonic() - began
            reach("stage-run")
            volume.look()
            made = stage.made_digest(volume) or ""
            if not self.ledger.commit(lease, made, seconds if was_to_do else None):
                return self._abandoned(lease, began)
            reach("stage-committed")
        except Stopped:
            self.ledger.release(lease)
            wait_seconds = self._abandoned(lease, began)
            if self._is_wanted(lease):
                raise  # whoever listens asks for the end of all
            return wait_seconds
        except _FATAL:
            if self.has_stalled:  # its executor was closed under it
                return self._failed(volume, stage, lease, TemporaryFailure(_STALLED), began)
            self.ledger.release(lease)
            self._abandoned(lease, began)
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the others go on
            return self._failed(volume, stage, lease, error, began)
        finally:
            self._leases.discard(lease)
        self.watchdog.moved(time.monotonic())
        self.say(Ended(volume.id, stage.key, "committed", seconds))
        self._settle(volume, stage, "done")
        return None

    def _work_of(self, lease: Lease, executor: Executor, priority: int) -> Work:
        totals: dict[str, tuple[int | None, str]] = {}

        def check() -> None:
            self.watchdog.moved(time.monotonic())
            if not self._is_wanted(lease):
                raise Stopped(f"{lease.stage} of {lease.tomogram} is abandoned: run it again")

        def hear(event: Event) -> None:
            check()
            if isinstance(event, Started):
                totals[event.name] = (event.total, event.unit)
            elif isinstance(event, Advanced):
                total = totals.get(event.name, (None, ""))
                self.say(Moved(lease.tomogram, lease.stage, event.name, event.units, *total))
            if not (isinstance(event, Noted | Warned) or lease.tomogram in event.name):
                event = replace(event, name=f"{lease.tomogram} {event.name}")
            with self._telling:
                self.listen(event)

        memory = self.settings.memory and parse_bytes(self.settings.memory) // self.settings.volumes
        if executor.is_local:
            workers = max(1, executor.n_workers // self.settings.volumes)
        else:
            workers = executor.n_workers
        return Work(
            executor=None if executor.is_local else executor,
            workers=workers,
            priority=priority,
            memory_bytes=memory or None,
            listen=hear,
            check=check,
        )

    def _is_wanted(self, lease: Lease) -> bool:
        return not self.is_over.is_set() and lease not in self._lost

    def _failed(
        self, volume: Volume, stage: Stage, lease: Lease, error: Exception, began: float
    ) -> float | None:
        said = " ".join(str(error).split()) or "no more is known"
        reason = said if isinstance(error, OtziError) else f"{type(error).__name__}: {said}"
        is_tried_again = _may_pass(error) and lease.attempt < self.settings.attempts
        retry = self._backoff_seconds(lease) if is_tried_again else None
        if not self.ledger.fail(lease, reason, retry):
            return self._abandoned(lease, began)
        seconds = time.monotonic() - began
        if retry is None:
            self.say(Ended(volume.id, stage.key, "quarantined", seconds, reason))
            self._quarantine(volume, stage, reason)
        else:
            self.say(Ended(volume.id, stage.key, "failed", seconds, reason, retry))
            self._warn(f"{volume.id} {stage.key} is tried again in {retry:.0f} s: {reason}")
        return retry

    def _backoff_seconds(self, lease: Lease) -> float:
        backoff = self.settings.backoff_seconds * 2.0 ** (lease.attempt - 1)
        return min(backoff, _MOST_BACKOFF_SECONDS) * self.chance.uniform(0.5, 1.5)

    def _abandoned(self, lease: Lease, began: float) -> float:
        seconds = time.monotonic() - began
        self.say(Ended(lease.tomogram, lease.stage, "abandoned", seconds))
        return 0.0

    def _settle(self, volume: Volume, stage: Stage, state: SettledState) -> None:
        key = (volume.id, stage.key)
        if self.settled.get(key) != state:
            self.settled[key] = state
            self.say(Settled(*key, state))

    def _quarantine(self, volume: Volume, stage: Stage, reason: str) -> None:
        if self.quarantined.get((volume.id, stage.key)) != reason:
            self.quarantined[volume.id, stage.key] = reason
            self._warn(f"{volume.id} {stage.key} is quarantined: {reason}")
        self._settle(volume, stage, "quarantined")

    def _warn(self, message: str) -> None:
        with self._telling:
            self.listen(Warned(message))


def _may_pass(error: Exception) -> bool:
    """Tell whether the same may go well another time: our own errors say so, the system's may."""
    if isinstance(error, OtziError):
        return isinstance(error, TemporaryFailure)
    return isinstance(error, OSError | MemoryError)
