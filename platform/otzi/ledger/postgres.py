"""The stages in PostgreSQL, where several coordinators share a collection.

Each collection has a schema of its own in the database, whatever its path on the machine that asks.
The catalog itself stays SQLite's, one for each coordinator (``OTZI_LEDGER``): its rows follow from
what is published.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from otzi.errors import ConfigurationError, TemporaryFailure, UsageError
from otzi.ledger.stages import StageLedger, embedded_stages, read_stages
from otzi.ledger.tables import STAGE_TABLE
from otzi.store.groups import read_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otzi.collection import Collection
    from otzi.ledger.stages import Row, Run, StageRow
    from otzi.store.location import Location

__all__ = ["checked_address", "postgres_stages", "read_stage_rows", "stage_ledger"]

_NOW = "extract(epoch FROM clock_timestamp())"
_TABLE = STAGE_TABLE.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)
_LOG = """
    CREATE TABLE IF NOT EXISTS event (
        n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        time TEXT NOT NULL,
        tomogram TEXT,
        stage TEXT,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL
    )
"""
_CONNECT_SECONDS = 10


def checked_address(ledger: str | None) -> str | None:
    """Give the address of a database back, or None for the collection's own catalog.

    Raises
    ------
    UsageError
        If it is none of PostgreSQL.
    """
    if ledger is None or ledger.startswith(("postgresql://", "postgres://")):
        return ledger
    raise UsageError(f"ledger {ledger!r}: write postgresql://USER@HOST/DATABASE, or leave it out")


def postgres_stages(address: str, collection: Location) -> StageLedger:
    """Give the stages of a collection in a database, whose table is made if it is not there.

    Parameters
    ----------
    address
        ``postgresql://USER@HOST/DATABASE``; a password is better kept in ``~/.pgpass``.
    collection
        It is known by when it was created, and by its classes.

    Raises
    ------
    ConfigurationError
        If psycopg is not installed.
    TemporaryFailure
        If the database cannot be reached, or fails.
    """
    try:
        import psycopg
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "a ledger in PostgreSQL needs psycopg: pip install 'otzi[postgres]'"
        ) from error

    schema = _schema(collection)

    @contextmanager
    def transaction() -> Iterator[Run]:
        try:
            with (
                psycopg.connect(address, connect_timeout=_CONNECT_SECONDS) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(f"SET search_path TO {schema}".encode())

                def run(statement: str, values: Row) -> list[Row]:
                    cursor.execute(statement.replace("?", "%s").encode(), values)
                    return cursor.fetchall() if cursor.description else []

                yield run
        except psycopg.Error as error:
            said = " ".join(str(error).split())[:200]
            raise TemporaryFailure(
                f"the ledger in PostgreSQL fails ({said}): see that the server of --ledger runs"
            ) from error

    with transaction() as run:
        # Of several who would make it at the same time all but one wait.
        run("SELECT pg_advisory_xact_lock(7077537)", ())
        run(f"CREATE SCHEMA IF NOT EXISTS {schema}", ())
        run(_TABLE, ())
        run(_LOG, ())
    return StageLedger(transaction, _NOW, "FOR UPDATE SKIP LOCKED")


def stage_ledger(collection: Collection, ledger: str | None) -> StageLedger:
    """Give the stages of a collection, in a database where one is named, to work on."""
    if (address := checked_address(ledger)) is not None:
        return postgres_stages(address, collection.path)
    return embedded_stages(collection.workspace)


def read_stage_rows(collection: Collection, ledger: str | None) -> list[StageRow]:
    """Give the stages of a collection, from a database where one is named."""
    if (address := checked_address(ledger)) is not None:
        return postgres_stages(address, collection.path).rows()
    return read_stages(collection.workspace)


def _schema(collection: Location) -> str:
    said: dict[str, Any] = (read_group(collection) or {}).get("otzi", {})
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return f"otzi_{digest[:16]}"
