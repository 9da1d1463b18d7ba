"""Polls one after another, what follows each, and who is told of it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otzi.errors import DeviceUnavailable, Locked, Stopped, TemporaryFailure
from otzi.events import Warned
from otzi.ledger.sources import SourceRow
from otzi.ledger.sqlite import ledger_path
from otzi.store.locks import locked
from otzi_pipelines.watch.pipeline import RAN, Background
from otzi_pipelines.watch.report import PollReport, row_json
from otzi_pipelines.watch.wake import wait_for_change

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otzi.events import Listener
    from otzi.stopping import Stop
    from otzi_pipelines.watch.notify import Notifier
    from otzi_pipelines.watch.pipeline import FollowUp
    from otzi_pipelines.watch.poll import Poll

__all__ = ["Watch", "watching"]

_LEAST_SECONDS = 0.1
_LOOKS = 100.0
"""Whatever comes, at most one part in so many of the time goes into looking."""
_MAY_PASS = (TemporaryFailure, DeviceUnavailable)


@contextmanager
def watching(workspace: Path) -> Iterator[None]:
    """Be the only one that watches for a collection.

    Raises
    ------
    Locked
        If somebody else is.
    """
    ledger = ledger_path(workspace)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(ledger.with_name(f"{ledger.name}.watch.lock")))
        except Locked as error:
            raise Locked(
                f"{workspace} is watched by somebody else already: stop that one, or let it watch "
                "a folder above both"
            ) from error
        yield


@dataclass(frozen=True, slots=True)
class Watch:
    """What is done again and again."""

    poll: Poll
    notify: Notifier
    follow_up: FollowUp | None = None

    def once(self, stop: Stop, listen: Listener) -> PollReport:
        """Poll, run the pipeline for what is new, tell whom it concerns; give what was done.

        Raises
        ------
        TemporaryFailure, DeviceUnavailable
            If something fails that may pass.
        """
        try:
            report = self._polled(stop, listen)
            if self.follow_up is not None and not report.was_stopped:
                report.pipeline_code = self.follow_up(stop.asked, listen)
        except _MAY_PASS as error:
            self.notify("unavailable", listen, reason=str(error))
            raise
        self._tell_of_completion(report, listen)
        return report

    def forever(
        self, every_seconds: float, stop: Stop, listen: Listener, *, wake: bool = False
    ) -> Iterator[PollReport]:
        """Yield what was done by each poll, until the end is asked for.

        The next poll comes after these seconds, sooner if a file may be complete by then; the
        pipeline is run beside them. What fails and may pass is told once, and tried again.

        Raises
        ------
        ConfigurationError, UsageError
            If the pipeline cannot be run at all.
        """
        beside = None if self.follow_up is None else Background(self.follow_up, stop.asked, listen)
        if beside is not None:
            beside.check()
        has_failed, code, waiting, least = False, 0, list[SourceRow](), every_seconds
        try:
            while not stop.asked.is_set():
                seconds = every_seconds
                try:
                    report = self._polled(stop, listen)
                except _MAY_PASS as error:
                    if not has_failed:
                        listen(Warned(str(error)))
                        self.notify("unavailable", listen, reason=str(error))
                    has_failed = True
                else:
                    has_failed, waiting = False, report.waiting
                    if beside is not None:
                        code = self._follow(beside, report, code, listen)
                    if beside is None or not beside.is_running:
                        self._tell_of_completion(report, listen)
                    least = min(seconds, max(_LEAST_SECONDS, _LOOKS * report.look_seconds))
                    if report.due_seconds is not None:
                        seconds = max(least, min(seconds, report.due_seconds))
                    yield report
                if wake:
                    wait_for_change(self.poll.folder, seconds, least, stop.asked)
                else:
                    stop.asked.wait(seconds)
            if beside is not None and beside.is_running:
                last = PollReport(self.poll.folder, waiting=waiting)
                last.pipeline_code = beside.ended(wait=True)
                last.was_stopped = last.pipeline_code not in RAN
                yield last
        finally:
            stop.asked.set()  # for the pipeline, if an error ends the polls

    def _follow(
        self, beside: Background, report: PollReport, code_before: int, listen: Listener
    ) -> int:
        """Have the pipeline run; give the exit code of its last run."""
        report.pipeline_code = code = beside.ended()
        beside.begin()
        if code is None:
            return code_before
        if code not in (*RAN, Stopped.exit_code, code_before):
            reason = f"the pipeline ended with exit code {code}"
            self.notify("unavailable", listen, reason=reason)
        return code

    def _polled(self, stop: Stop, listen: Listener) -> PollReport:
        try:
            report = self.poll(stop.listening(listen))
        except Stopped:
            return PollReport(self.poll.folder, was_stopped=True)
        if bad := [row for row in report.quarantined if row not in report.stalled]:
            self.notify("quarantined", listen, [row_json(row) for row in bad])
        if report.stalled:
            self.notify("stalled", listen, [row_json(row) for row in report.stalled])
        return report

    def _tell_of_completion(self, report: PollReport, listen: Listener) -> None:
        is_over = report.did_something and not (report.waiting or report.was_stopped)
        if is_over and report.pipeline_code in (None, 0):
            sealed = [row_json(row) for row in report.sealed]
            self.notify("completed", listen, sealed, counts=report.counts)
