"""The tables of ``catalog.sqlite``, and how an older one is brought up to date.

The rows of products follow from what is published, so that a rebuild makes them again, row for row.
The rows of work say what was going on; the work finds its way without them. No table has hidden
row numbers: the order of a dump is that of the keys.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from otzi.errors import ConfigurationError

__all__ = ["STAGE_TABLE", "are_whole", "migrate", "tables"]

_FIRST = (
    """
    CREATE TABLE collection (          -- one row: what the collection says of itself
        n INTEGER PRIMARY KEY CHECK (n = 1),
        attributes TEXT NOT NULL,      -- JSON: format, created, classes
        sha256 TEXT NOT NULL           -- of that text
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE tomogram (            -- of raw; all NULL until that is published
        id TEXT PRIMARY KEY,
        n_z INTEGER, n_y INTEGER, n_x INTEGER,
        spacing_z_angstrom REAL, spacing_y_angstrom REAL, spacing_x_angstrom REAL,
        source_name TEXT, source_n_bytes INTEGER, source_sha256 TEXT
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE product (             -- the published generation of each product
        tomogram TEXT NOT NULL REFERENCES tomogram (id),
        name TEXT NOT NULL,            -- raw, labels/NAME …
        generation INTEGER NOT NULL,
        digest TEXT NOT NULL,          -- SHA-256 of the manifest
        kind TEXT NOT NULL,
        recipe TEXT NOT NULL,          -- JSON
        shape TEXT, dtype TEXT, n_levels INTEGER,  -- of an image; shape is JSON
        n_bytes INTEGER NOT NULL,
        PRIMARY KEY (tomogram, name)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE parent (              -- what a product was made from
        tomogram TEXT NOT NULL,
        product TEXT NOT NULL,
        parent TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (tomogram, product, parent),
        FOREIGN KEY (tomogram, product) REFERENCES product (tomogram, name) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE file (                -- the manifest: shards and metadata
        tomogram TEXT NOT NULL,
        product TEXT NOT NULL,
        path TEXT NOT NULL,
        n_bytes INTEGER NOT NULL,
        crc32c INTEGER NOT NULL,
        content TEXT,                  -- of JSON files: what `otzi verify --repair` puts back
        PRIMARY KEY (tomogram, product, path),
        FOREIGN KEY (tomogram, product) REFERENCES product (tomogram, name) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
)

_SOURCES = (
    """
    CREATE TABLE source (              -- files of watched folders, each revision of each
        path TEXT NOT NULL,
        revision INTEGER NOT NULL,     -- 1, and one more whenever other bytes took its place
        folder TEXT NOT NULL,          -- the watched folder
        state TEXT NOT NULL,           -- see otzi.ledger.sources
        inode INTEGER NOT NULL,
        n_bytes INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL,
        boot TEXT NOT NULL,            -- which boot of which machine the next column counts from
        quiet_since_seconds REAL NOT NULL,  -- since when it has not changed
        attempts INTEGER NOT NULL,     -- that failed for a reason that may pass
        evidence TEXT,                 -- why it was taken for complete
        reason TEXT,                   -- why it is not taken
        sha256 TEXT,
        tomogram TEXT,                 -- that was made of it, or whose bytes it has
        pipeline TEXT,                 -- SHA-256 of the pipeline that was run on that
        detail TEXT NOT NULL,          -- JSON: warnings, what side-cars say
        first_seen TEXT NOT NULL,      -- UTC, as is the next
        settled_at TEXT,
        PRIMARY KEY (path, revision)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE event (               -- what happened; rows are added only
        n INTEGER PRIMARY KEY,
        time TEXT NOT NULL,            -- UTC
        tomogram TEXT,
        stage TEXT,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL           -- JSON
    )
    """,
)

STAGE_TABLE = """
    CREATE TABLE stage (               -- what is to be done with each tomogram, and how far it is
        tomogram TEXT NOT NULL,
        stage TEXT NOT NULL,           -- as the pipeline names it
        input_digest TEXT NOT NULL,    -- of all that decides the output
        state TEXT NOT NULL,           -- ready, leased, committed, failed or quarantined
        attempt INTEGER NOT NULL DEFAULT 0,  -- begun, since the input is what it is
        deaths INTEGER NOT NULL DEFAULT 0,   -- of those who worked on it
        token BIGINT NOT NULL DEFAULT 0,     -- whoever reports must hold it
        owner TEXT,
        lease_until DOUBLE PRECISION,  -- seconds since 1970, by the clock of the database
        retry_at DOUBLE PRECISION,     -- likewise
        output_digest TEXT,            -- of the last commit
        seconds DOUBLE PRECISION,      -- that the last commit took
        error TEXT,
        PRIMARY KEY (tomogram, stage)
    )
"""
"""Also PostgreSQL's, where several coordinators share the stages; see `otzi.ledger.stages`."""

_STAGES = (f"{STAGE_TABLE} WITHOUT ROWID",)

_MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SOURCES, _STAGES)
"""Version n is reached by the first n of these; one that was released is never changed."""


def migrate(connection: sqlite3.Connection, version: int = len(_MIGRATIONS)) -> None:
    """Bring the tables up to a version, within the transaction in hand.

    Raises
    ------
    ConfigurationError
        If they are of a later otzi.
    """
    found = _version(connection)
    if found > version:
        raise ConfigurationError(
            f"the catalog has version {found}, this otzi knows up to {version}: update otzi"
        )
    for number in range(found, version):
        for statement in _MIGRATIONS[number]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number + 1}")


def are_whole(connection: sqlite3.Connection) -> bool:
    """Tell whether the tables are those of their version.

    Raises
    ------
    ConfigurationError
        If they are of a later otzi.
    """
    found, latest = _version(connection), len(_MIGRATIONS)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        migrate(fresh, max(0, min(found, latest)))
        is_same = tables(fresh) == tables(connection)
    if found > latest and not is_same:
        migrate(connection)  # says so
    return is_same and found <= latest


def tables(connection: sqlite3.Connection) -> tuple[tuple[str, str], ...]:
    """Give name and definition of every table there is."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name"
    return tuple(connection.execute(query).fetchall())


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
