"""The rows of all watched files, in memory as in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otzi.ledger.sources import SourceRow, Sources, read_source_rows
from otzi.ledger.sqlite import open_catalog

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from otzi_pipelines.watch.candidates import Changes
    from otzi_pipelines.watch.outcomes import Outcome

__all__ = ["SourceBook"]


class SourceBook:
    """The latest revision of every file and the one before it; what is changed here is written."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self.latest: dict[Path, SourceRow] = {}
        self.previous: dict[Path, SourceRow] = {}
        self._owners: dict[str, Path] = {}
        for row in read_source_rows(workspace):
            if row.path in self.latest:
                self.previous[row.path] = self.latest[row.path]
            self._keep(row)

    def of(self, folder: Path, paths: Collection[Path]) -> dict[Path, SourceRow]:
        """Give the latest rows of a watched folder, and those of the paths if others watch them."""
        return {
            path: row for path, row in self.latest.items() if row.folder == folder or path in paths
        }

    def owner(self, tomogram: str) -> Path | None:
        """Give the file that a tomogram was made of, as far as it is known."""
        return self._owners.get(tomogram)

    def carry_on(self, changes: Changes) -> None:
        """Take over how the rows of a folder have changed since the last look."""
        if not (changes.put or changes.gone):
            return
        with open_catalog(self._workspace) as catalog, catalog.transaction():
            sources = Sources(catalog)
            for row in changes.put:
                sources.put(row)
            for row in changes.gone:
                sources.remove(row)
        for row in changes.put:
            before = self.latest.get(row.path)
            if before is not None and before.revision < row.revision:
                self.previous[row.path] = before
            self._keep(row)
        for row in changes.gone:
            self._forget(row)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Take over what became of files, with the events of that."""
        if not outcomes:
            return
        with open_catalog(self._workspace) as catalog, catalog.transaction():
            sources = Sources(catalog)
            for outcome in outcomes:
                if outcome.superseded is not None:
                    sources.put(outcome.superseded, "superseded")
                if outcome.forgotten is not None:
                    sources.remove(outcome.forgotten)
                reason = {} if outcome.row.reason is None else {"reason": outcome.row.reason}
                sources.put(outcome.row, outcome.event, **reason)
        for outcome in outcomes:
            if outcome.superseded is not None:
                self.previous[outcome.row.path] = outcome.superseded
            self._keep(outcome.row)

    def _keep(self, row: SourceRow) -> None:
        self.latest[row.path] = row
        if row.state == "sealed" and row.tomogram is not None:
            self._owners[row.tomogram] = row.path

    def _forget(self, row: SourceRow) -> None:
        del self.latest[row.path]
        if row.path in self.previous:
            self.latest[row.path] = self.previous.pop(row.path)
