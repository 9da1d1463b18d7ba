"""The stages of every tomogram: what is wanted, who works on it, what came of it.

::

    ready ──claim──> leased ──commit──> committed
      ^                │ fail, may pass: retry_at
      │                ├──────────────> failed ──claim, when it is time──> leased
      │                │ fail for good, or too often
      │                └──────────────> quarantined ──retry──> ready
      └── release, the holder died, or another input digest than before

Every claim raises the token of its row, and whoever reports must hold the newest one: a holder that
was taken for dead can neither commit nor fail what somebody else works on now. Clocks decide only
when a lease is over, never what is committed. What is reported is kept in the log, too.

The statements are the same for SQLite (`otzi.ledger.sqlite`) and for PostgreSQL
(`otzi.ledger.postgres`), which differ in how they are run and by whose clock.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from otzi.ledger.log import added
from otzi.ledger.sqlite import open_catalog, read_catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import TypeAlias

    Row: TypeAlias = tuple[Any, ...]
    Run: TypeAlias = Callable[[str, Row], list[Row]]

__all__ = [
    "MOST_DEATHS",
    "Lease",
    "StageLedger",
    "StageRow",
    "StageState",
    "embedded_stages",
    "read_stages",
]

StageState = Literal["ready", "leased", "committed", "failed", "quarantined"]

MOST_DEATHS = 10
"""So often may whoever works on a stage be killed before the stage itself is blamed."""

_SQLITE_NOW = "((julianday('now') - 2440587.5) * 86400.0)"

_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'stage'"

_COLUMNS = (
    "tomogram, stage, input_digest, state, attempt, deaths, token, owner, output_digest, seconds, "
    "error, CASE state WHEN 'failed' THEN retry_at - {now} WHEN 'leased' THEN lease_until - {now} "
    "END"
)
_KEY = "tomogram = ? AND stage = ?"
_FREE = "owner = NULL, lease_until = NULL, retry_at = NULL"

_WANT = f"""
    INSERT INTO stage (tomogram, stage, input_digest, state) VALUES (?, ?, ?, 'ready')
    ON CONFLICT (tomogram, stage) DO UPDATE SET
        input_digest = excluded.input_digest, state = 'ready', attempt = 0, deaths = 0,
        token = stage.token + 1, error = NULL, {_FREE}
    WHERE stage.input_digest <> excluded.input_digest
"""
_ANNOUNCE = """
    INSERT INTO stage (tomogram, stage, input_digest, state) VALUES (?, ?, '', 'ready')
    ON CONFLICT (tomogram, stage) DO UPDATE SET state = 'ready'
    WHERE stage.state = 'committed' AND stage.token = ?
"""
_WANT_AGAIN = f"""
    UPDATE stage SET state = 'ready', attempt = 0, deaths = 0, token = token + 1, {_FREE}
    WHERE {_KEY} AND state = 'committed' AND output_digest <> ?
"""
_BURY = f"""
    UPDATE stage SET
        state = CASE WHEN deaths + 1 < ? THEN 'ready' ELSE 'quarantined' END,
        error = CASE WHEN deaths + 1 < ? THEN error ELSE ? END,
        attempt = attempt - 1, deaths = deaths + 1, token = token + 1, {_FREE}
    WHERE state = 'leased' AND
"""
_CLAIM = f"""
    UPDATE stage SET
        state = 'leased', attempt = attempt + 1, token = token + 1, owner = ?,
        lease_until = {{now}} + ?, retry_at = NULL
    WHERE (tomogram, stage) IN (
        SELECT tomogram, stage FROM stage
        WHERE {_KEY} AND (state = 'ready' OR (state = 'failed' AND retry_at <= {{now}}))
        {{skip_locked}}
    )
    RETURNING token, attempt
"""
_MINE = f"WHERE {_KEY} AND token = ? AND state = 'leased' RETURNING 1"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a stage of a tomogram."""

    tomogram: str
    stage: str
    token: int
    attempt: int
    """1 at the first."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from every other lease there was."""
        return self.tomogram, self.stage, self.token


@dataclass(frozen=True, slots=True)
class StageRow:
    """What is known of a stage of a tomogram."""

    tomogram: str
    stage: str
    input_digest: str
    state: StageState
    attempt: int
    deaths: int
    token: int
    owner: str | None
    output_digest: str | None
    seconds: float | None
    error: str | None
    wait_seconds: float | None
    """Until a failed one may be tried again, or a lease is over."""


class StageLedger:
    """The stages in a table of a database; each call is one transaction.

    Parameters
    ----------
    transaction
        Gives, as a context, a function that runs a statement with its values and gives the rows.
    now
        The database's expression for the seconds since 1970.
    skip_locked
        What keeps a claim from waiting for another one, at the end of its SELECT.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Run]],
        now: str,
        skip_locked: str = "",
    ) -> None:
        self._transaction = transaction
        self._words = {"now": now, "skip_locked": skip_locked}

    def rows(self) -> list[StageRow]:
        """Give all rows, in the order of their keys."""
        with self._transaction() as run:
            return self._rows(run, "ORDER BY tomogram, stage", ())

    def announce(self, stages: Iterable[tuple[str, str, int]]) -> None:
        """Have stages stand as ready that are to be done, whose input may not be known for long.

        For whoever wants to know what is left to do. Each is named by its key and by the token of
        the row that was looked at, 0 without one: others may have done it since.
        """
        with self._transaction() as run:
            for stage in stages:
                run(_ANNOUNCE, stage)

    def withdraw(self, keys: Iterable[tuple[str, str]]) -> None:
        """Forget stages that were announced and can not be begun, for want of something."""
        with self._transaction() as run:
            for key in keys:
                run(f"DELETE FROM stage WHERE {_KEY} AND input_digest = ''", key)

    def claim(
        self,
        tomogram: str,
        stage: str,
        input_digest: str,
        output_digest: str | None = None,
        *,
        owner: str,
        lease_seconds: float,
    ) -> Lease | StageRow:
        """Give the lease of a stage, or the row that tells why there is none now.

        Parameters
        ----------
        tomogram, stage
            Its key.
        input_digest
            What it is wanted for: if that is new, what is known of the stage is void.
        output_digest
            Of the output there is now, empty without one: a stage that committed another one is
            wanted again. None to take a commit for what it says.
        owner, lease_seconds
            Who asks, and for how long.
        """
        key = (tomogram, stage)
        with self._transaction() as run:
            run(_WANT, (*key, input_digest))
            if output_digest is not None:
                run(_WANT_AGAIN, (*key, output_digest))
            self._bury(run, f"{_KEY} AND lease_until < {{now}}", key)
            claimed = run(self._sql(_CLAIM), (owner, lease_seconds, *key))
            if claimed:
                ((token, attempt),) = claimed
                return Lease(*key, token, attempt)
            (row,) = self._rows(run, f"WHERE {_KEY}", key)
            return row

    def renew(self, leases: Sequence[Lease], lease_seconds: float) -> set[Lease]:
        """Begin the time of leases anew; give those that are lost."""
        renewal = self._sql(f"UPDATE stage SET lease_until = {{now}} + ? {_MINE}")
        with self._transaction() as run:
            return {lease for lease in leases if not run(renewal, (lease_seconds, *lease.key))}

    def commit(self, lease: Lease, output_digest: str, seconds: float | None) -> bool:
        """Keep that a stage is done; tell whether the lease still held.

        What it took is None where it was made already.
        """
        values = (
            "state = 'committed', output_digest = ?, seconds = COALESCE(?, seconds), error = NULL"
        )
        detail = {"attempt": lease.attempt, "output_digest": output_digest, "seconds": seconds}
        return self._report(lease, values, (output_digest, seconds), "committed", detail)

    def fail(self, lease: Lease, error: str, retry_seconds: float | None) -> bool:
        """Keep that a stage failed, for some time or for good; tell whether the lease held."""
        detail = {"attempt": lease.attempt, "error": error}
        if retry_seconds is None:
            values = "state = 'quarantined', error = ?"
            return self._report(lease, values, (error,), "quarantined", detail)
        values = f"state = 'failed', error = ?, retry_at = {self._words['now']} + ?"
        return self._report(lease, values, (error, retry_seconds), "failed", detail)

    def release(self, lease: Lease) -> bool:
        """Give a lease back as if it had never been; tell whether it held."""
        values = "state = 'ready', attempt = attempt - 1"
        return self._report(lease, values, (), "released", {"attempt": lease.attempt})

    def bury(self, owner: str) -> int:
        """Take back the leases of an owner who is known to be dead; give how many."""
        with self._transaction() as run:
            return self._bury(run, "owner = ?", (owner,))

    def retry(self, tomogram: str) -> int:
        """Take the stages of a tomogram out of quarantine; give how many."""
        with self._transaction() as run:
            return len(
                run(
                    "UPDATE stage SET state = 'ready', attempt = 0, deaths = 0, error = NULL "
                    "WHERE tomogram = ? AND state = 'quarantined' RETURNING 1",
                    (tomogram,),
                )
            )

    def _report(
        self, lease: Lease, values: str, parameters: Row, kind: str, detail: Mapping[str, Any]
    ) -> bool:
        statement = f"UPDATE stage SET owner = NULL, lease_until = NULL, {values} {_MINE}"
        with self._transaction() as run:
            holds = bool(run(statement, (*parameters, *lease.key)))
            if holds:
                run(*added(kind, lease.tomogram, lease.stage, detail))
            return holds

    def _bury(self, run: Run, which: str, values: Row) -> int:
        reason = f"whoever worked on it died {MOST_DEATHS} times: look for what kills the process"
        statement = self._sql(f"{_BURY} {which} RETURNING 1")
        return len(run(statement, (MOST_DEATHS, MOST_DEATHS, reason, *values)))

    def _rows(
        self,
        run: Run,
        which: str,
        values: Row,
    ) -> list[StageRow]:
        query = self._sql(f"SELECT {_COLUMNS} FROM stage {which}")
        return [StageRow(*row) for row in run(query, values)]

    def _sql(self, statement: str) -> str:
        return statement.format(**self._words)


def embedded_stages(collection: Path) -> StageLedger:
    """Give the stages in the catalog of a collection."""

    @contextmanager
    def transaction() -> Iterator[Run]:
        with open_catalog(collection) as catalog, catalog.transaction():
            yield lambda statement, values: catalog.execute(statement, values).fetchall()

    return StageLedger(transaction, _SQLITE_NOW)


def read_stages(collection: Path) -> list[StageRow]:
    """Give all rows of the catalog of a collection, to which nothing is written."""

    @contextmanager
    def reading() -> Iterator[Run]:
        with read_catalog(collection) as catalog:
            if catalog is None or not catalog.execute(_HAS_TABLE).fetchall():
                yield lambda *_: []
            else:
                yield lambda statement, values: catalog.execute(statement, values).fetchall()

    return StageLedger(reading, _SQLITE_NOW).rows()
