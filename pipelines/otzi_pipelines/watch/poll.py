"""One poll: a look at the folder, what follows from it, and an ingest of what is complete."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from otzi.errors import NotFoundError, Stopped, TemporaryFailure
from otzi.events import Listener, Warned, ignore
from otzi_pipelines.ingest.plan import IngestItem
from otzi_pipelines.ingest.quarantine import keep_report, remove_reports
from otzi_pipelines.watch.book import SourceBook
from otzi_pipelines.watch.candidates import carry_on
from otzi_pipelines.watch.clock import Clock, now, seconds_between
from otzi_pipelines.watch.examine import examine
from otzi_pipelines.watch.outcomes import Content, Outcome, outcome, postponed, quarantined
from otzi_pipelines.watch.report import PollReport
from otzi_pipelines.watch.rules import FolderRule, WatchRules
from otzi_pipelines.watch.scan import scan
from otzi_pipelines.watch.sidecars import SideCarFolder, SideCars

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from otzi.collection import Collection
    from otzi.ledger.sources import Quiet, SourceRow
    from otzi_pipelines.ingest.request import Request
    from otzi_pipelines.watch.scan import Seen

__all__ = ["Poll"]

_AT_ONCE = 64
"""For so many files at a time there must be room on the disk, before any of them is begun."""


@dataclass(frozen=True, slots=True)
class Poll:
    """Polls of a folder for a collection, one at each call; all memory of them is in the ledger."""

    collection: Collection
    folder: Path
    """Absolute."""
    rules: WatchRules = field(default_factory=WatchRules)
    workers: int = 1
    memory_bytes: int | None = None
    clock: Clock = now

    def __call__(self, listen: Listener = ignore) -> PollReport:
        """Look at the folder and ingest what is complete.

        Raises
        ------
        NotFoundError
            If the folder is not there, and never was.
        TemporaryFailure
            If it is gone, or empty all of a sudden; or something else fails that may pass.
        """
        begun = time.thread_time()
        moment, book = self.clock(), SourceBook(self.collection.workspace)
        seen = self._look(book, listen)
        changes = carry_on(book.of(self.folder, seen.sources), seen, self.folder, moment)
        book.carry_on(changes)
        for row in changes.freed:
            remove_reports(self.collection.workspace, row.path)
        report = PollReport(self.folder, look_seconds=time.thread_time() - begun)
        try:
            self._take(changes.rows.values(), seen, moment, book, report, listen)
        except Stopped:
            report.was_stopped = True
        files = [row for row in book.of(self.folder, ()).values() if row.state != "temporary"]
        report.waiting = [row for row in files if row.is_open]
        report.counts = dict(Counter(row.state for row in files))
        report.due_seconds = min(map(self._due_seconds, report.waiting), default=None)
        return report

    def _look(self, book: SourceBook, listen: Listener) -> Seen:
        """Give what is in the folder, unless it looks as if it were not the folder at all."""
        n_known = len(book.of(self.folder, ()))
        try:
            seen = scan(self.folder, listen, skip=(self.collection.workspace,))
        except NotFoundError as error:
            if not n_known:
                raise
            raise TemporaryFailure(
                f"{self.folder} is not there, {n_known} files were: mount it again"
            ) from error
        if seen.is_empty and n_known and not self.rules.may_be_empty:
            raise TemporaryFailure(
                f"{self.folder} is empty, {n_known} files were there: mount it again; if it was "
                "emptied on purpose, pass --may-be-empty"
            )
        wanted = [path for path in seen.sources if not self._rule(path).ignore]
        seen.sources = {path: seen.sources[path] for path in wanted}
        return seen

    def _take(
        self,
        rows: Iterable[SourceRow],
        seen: Seen,
        moment: Quiet,
        book: SourceBook,
        report: PollReport,
        listen: Listener,
    ) -> None:
        """Ingest what is complete, refuse what will never be, and leave the others."""
        work: dict[Request, SourceRow] = {}
        decided = []
        said = {folder: SideCarFolder(paths) for folder, paths in seen.sidecars.items()}
        for row in sorted((row for row in rows if row.is_open), key=_arrival):
            beside = said.get(row.path.parent)
            cars = SideCars() if beside is None else beside.of(row.path, row.file)
            found = examine(row, cars, self._rule(row.path), self.rules, moment)
            reason = found.decision.reason
            if found.may_pass:
                decided.append(postponed(row, reason, moment))
            elif found.decision.do == "refuse":
                refused = quarantined(row, reason)
                decided.append(refused)
                if found.decision.is_stalled:
                    report.stalled.append(refused.row)
            elif found.request is not None:
                work[found.request] = replace(row, evidence=found.evidence, detail=found.detail)
                for warning in found.warnings:
                    listen(Warned(f"{row.path.name}: {warning}"))
            elif reason != (row.reason or ""):
                decided.append(Outcome(replace(row, reason=reason or None)))
        self._settle(decided, book, report, listen)
        complete = list(work.items())
        for start in range(0, len(complete), _AT_ONCE):
            some = dict(complete[start : start + _AT_ONCE])
            self._ingest(some, book, report, listen)

    def _ingest(
        self,
        work: dict[Request, SourceRow],
        book: SourceBook,
        report: PollReport,
        listen: Listener,
    ) -> None:
        from otzi_pipelines.ingest.batch import ingest_requests  # takes longer than a look

        for request, items in ingest_requests(
            self.collection,
            list(work),
            workers=self.workers,
            memory_bytes=self.memory_bytes,
            listen=listen,
        ):
            row, item = work[request], items[0]
            content = self._content(item, book) if item.state in ("published", "done") else None
            before = book.previous.get(row.path)
            result = outcome(row, item, request.id, before, content, self.clock())
            self._settle([result], book, report, listen)

    def _content(self, item: IngestItem, book: SourceBook) -> Content:
        source = self.collection[item.id].attributes("raw")["source"]
        return Content(source["name"], source["sha256"], book.owner(item.id))

    def _settle(
        self, outcomes: Sequence[Outcome], book: SourceBook, report: PollReport, listen: Listener
    ) -> None:
        """Put outcomes where people and programs look for them."""
        book.settle(outcomes)
        ends = {
            "sealed": report.sealed,
            "duplicate": report.duplicates,
            "quarantined": report.quarantined,
        }
        workspace = self.collection.workspace
        for row, event in ((result.row, result.event) for result in outcomes):
            if event is None:
                continue
            ends[event].append(row)
            remove_reports(workspace, row.path)
            if event == "quarantined":
                name = row.tomogram or self._rule(row.path).tomogram_id(row.path, self.folder)
                keep_report(workspace, IngestItem(row.path, name, "quarantined", row.reason or ""))
                listen(Warned(f"quarantined: {row.reason}"))

    def _rule(self, path: Path) -> FolderRule:
        return self.rules.rule(path, self.folder)

    def _due_seconds(self, row: SourceRow) -> float:
        quiet = seconds_between(row.quiet, self.clock()) or 0.0
        patience = self.rules.patience(self._rule(row.path))
        limits = (patience.settle_seconds, patience.stall_seconds)
        return min((limit - quiet for limit in limits if limit > quiet), default=0.0)


def _arrival(row: SourceRow) -> tuple[str, int, Path]:
    """Give what the files of a folder are taken by in turn: of twins the first is the original."""
    return row.first_seen, row.file.mtime_ns, row.path
