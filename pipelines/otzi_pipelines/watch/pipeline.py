"""After the ingest: the pipeline, for every tomogram that it has not been run for."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from otzi.errors import OtziError
from otzi.events import Warned
from otzi.execute import checked_executor
from otzi.files import sha256_of_file
from otzi_pipelines.watch.book import SourceBook
from otzi_pipelines.watch.outcomes import Outcome

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event as Flag

    from otzi.collection import Collection
    from otzi.events import Listener
    from otzi.ledger.sources import SourceRow

__all__ = ["RAN", "Background", "FollowUp"]

RAN = (0, 5)
"""Exit codes of a run that came to everything; what it has quarantined is its own to try again."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Runs of a pipeline for the tomograms of a watched folder."""

    collection: Collection
    folder: Path
    pipeline: Path
    executor: str = "local"

    def is_wanted(self) -> bool:
        """Tell whether there are tomograms that it has not been run for."""
        return bool(self._rows(sha256_of_file(self.pipeline)))

    def __call__(self, stop: Flag, listen: Listener) -> int | None:
        """Run the pipeline for what was sealed since it was run; give its exit code.

        None if there is nothing to do. What it did not come to, it comes to the next time; a file
        of other content is another pipeline.
        """
        digest = sha256_of_file(self.pipeline)
        rows = self._rows(digest)
        if not rows:
            return None
        from otzi_pipelines.run.coordinator import run_pipeline

        code = run_pipeline(
            self.collection.path,
            self.pipeline,
            only=sorted({row.tomogram for row in rows if row.tomogram is not None}),
            executor=self.executor,
            stop=stop,
            listen=listen,
        )
        if code in RAN:
            ran = {(row.path, row.revision) for row in rows}
            now = [row for row in self._rows(digest) if (row.path, row.revision) in ran]
            book = SourceBook(self.collection.workspace)
            book.settle([Outcome(replace(row, pipeline=digest)) for row in now])
        return code

    def _rows(self, digest: str) -> list[SourceRow]:
        rows = SourceBook(self.collection.workspace).of(self.folder, ()).values()
        return [
            row
            for row in rows
            if row.state == "sealed"
            and row.pipeline != digest
            and row.tomogram in self.collection  # it may have been removed by hand
        ]


@dataclass(slots=True)
class Background:
    """The pipeline beside the polls, which go on; one run at a time."""

    follow_up: FollowUp
    stop: Flag
    listen: Listener
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "pipeline"))
    _running: Future[int | None] | None = None
    _said: str = ""

    def begin(self) -> None:
        """Begin a run, if none is under way and there is something to do."""
        if self._running is None and self.follow_up.is_wanted():
            self._running = self._pool.submit(self.follow_up, self.stop, self.listen)

    def check(self) -> None:
        """Make sure, while somebody looks, that it can be run at all.

        Raises
        ------
        ConfigurationError, NotFoundError
            If the file is no pipeline.
        UsageError
            If there is no such executor.
        """
        from otzi_pipelines.run.pipeline import load_pipeline

        load_pipeline(self.follow_up.pipeline)
        checked_executor(self.follow_up.executor)

    @property
    def is_running(self) -> bool:
        """Whether a run is under way, or over and not yet asked for."""
        return self._running is not None

    def ended(self, *, wait: bool = False) -> int | None:
        """Give the exit code of a run that is over; None if there is none.

        An error is told, and told again only when it is another one: files go on to arrive, and
        the run is tried again.
        """
        if self._running is None or not (wait or self._running.done()):
            return None
        running, self._running = self._running, None
        try:
            code, said = running.result(), ""
        except OtziError as error:
            code, said = error.exit_code, str(error)
        if said not in ("", self._said):
            self.listen(Warned(f"the pipeline ended: {said}"))
        self._said = said
        return code
