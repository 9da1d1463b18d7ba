"""The catalog in SQLite: where it lies, how it is opened, and its rows.

It lies beside the tree, or in the folder that ``OTZI_LEDGER`` names: never on a network file
system, where SQLite's locks do not hold. Every use opens it, works in one transaction and closes
it; workers do not open it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from otzi.errors import (
    AccessDenied,
    ConfigurationError,
    Locked,
    OutOfSpace,
    TemporaryFailure,
    VerificationError,
    disk_errors,
)
from otzi.filesystem import file_system, is_network
from otzi.ledger.tables import are_whole, migrate, tables
from otzi.store.manifest import manifest_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otzi.errors import OtziError
    from otzi.ledger.published import Published

__all__ = [
    "Catalog",
    "check_place",
    "largest_bytes",
    "ledger_path",
    "open_catalog",
    "read_catalog",
    "scratch_catalog",
]

_BUSY_SECONDS = 60.0
_PAUSE_SECONDS = 0.01
_WAL_VERSIONS = b"\x02\x02"
_BESIDE_BYTES = 64 << 10
"""Room for the write-ahead log and its index."""

Row = tuple[Any, ...]


def ledger_path(collection: Path) -> Path:
    """Give the catalog of a collection: in it, or in the folder that ``OTZI_LEDGER`` names."""
    folder = os.environ.get("OTZI_LEDGER")
    if not folder:
        return collection / "catalog.sqlite"
    path = collection.resolve()
    place = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return Path(folder) / f"{path.name}-{place}.sqlite"


def check_place(collection: Path) -> None:
    """Check that the catalog of a collection may be written where it lies.

    Raises
    ------
    ConfigurationError
        If that is a network file system.
    """
    path = ledger_path(collection)
    kind = file_system(path)
    if is_network(kind):
        raise ConfigurationError(
            f"{path.parent} is on a network file system ({kind}), where SQLite's locks do not "
            "hold: set OTZI_LEDGER to a folder on a local disk, the catalog is made there"
        )


class Catalog:
    """An open catalog."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all or nothing; other writers wait."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()

    def execute(self, statement: str, values: Row = ()) -> sqlite3.Cursor:
        """Run a statement: what the tables of work are read and written with."""
        return self._connection.execute(statement, values)

    # Reading

    @property
    def attributes(self) -> dict[str, Any] | None:
        """What the collection says of itself; None in a catalog that was just made."""
        row = self.execute("SELECT attributes FROM collection").fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def digests(self) -> dict[tuple[str, str], str]:
        """Give the digest of every product, by tomogram and product."""
        rows = self.execute("SELECT tomogram, name, digest FROM product")
        return {(tomogram, name): digest for tomogram, name, digest in rows}

    def rows(self, tomogram: str, product: str) -> dict[str, list[Row]]:
        """Give all rows that follow from a product, by table."""
        key = (tomogram, product)
        queries = {
            "tomogram": ("SELECT * FROM tomogram WHERE id = ? AND ? = 'raw'", key),
            "product": ("SELECT * FROM product WHERE tomogram = ? AND name = ?", key),
            "parent": ("SELECT * FROM parent WHERE tomogram = ? AND product = ?", key),
            "file": ("SELECT * FROM file WHERE tomogram = ? AND product = ?", key),
        }
        return {name: self.execute(*query).fetchall() for name, query in queries.items()}

    def text(self, tomogram: str, product: str, path: str) -> str | None:
        """Give the content of a JSON file of a product."""
        query = "SELECT content FROM file WHERE tomogram = ? AND product = ? AND path = ?"
        row = self.execute(query, (tomogram, product, path)).fetchone()
        return None if row is None else row[0]

    def manifest(self, tomogram: str, product: str, generation: int) -> str | None:
        """Give the manifest of a generation, if its rows are those of its digest."""
        query = "SELECT path, n_bytes, crc32c FROM file WHERE tomogram = ? AND product = ?"
        files = {
            path: (n_bytes, crc) for path, n_bytes, crc in self.execute(query, (tomogram, product))
        }
        text = manifest_text({name: files[name] for name in sorted(files, key=PurePosixPath)})
        query = "SELECT generation, digest FROM product WHERE tomogram = ? AND name = ?"
        row = self.execute(query, (tomogram, product)).fetchone()
        return text if row == (generation, _sha256(text)) else None

    def dump(self) -> Iterator[dict[str, Any]]:
        """Yield every row of every table, in the order of tables and keys."""
        for name, _ in tables(self._connection):
            cursor = self.execute(f"SELECT * FROM {name}")
            columns = [column[0] for column in cursor.description]
            for row in cursor:
                yield {"table": name, **dict(zip(columns, row, strict=True))}

    def problems(self) -> list[str]:
        """Give what is wrong with the file, whatever its rows say."""
        if not are_whole(self._connection):
            return ["its tables are not those of its version"]
        found = [row[0] for row in self.execute("PRAGMA integrity_check")]
        found = [text for text in found if text != "ok"]
        orphans = self.execute("PRAGMA foreign_key_check").fetchall()
        found += [f"a row of {row[0]} belongs to nothing" for row in orphans]
        rows = self.execute("SELECT attributes, sha256 FROM collection")
        if any(_sha256(text) != sha256 for text, sha256 in rows):
            found.append("what it says of the collection is not what was written")
        return found

    # Writing

    def put_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Keep what the collection says of itself."""
        text = json.dumps(attributes)
        self.execute("REPLACE INTO collection VALUES (1, ?, ?)", (text, _sha256(text)))

    def put(self, published: Published) -> None:
        """Keep a product, in place of what was known of it."""
        tomogram, product, image = published.tomogram, published.product, published.image
        key, attributes, shape = (tomogram, product), published.attributes, published.shape
        self.execute("DELETE FROM product WHERE tomogram = ? AND name = ?", key)
        self.execute("INSERT OR IGNORE INTO tomogram (id) VALUES (?)", (tomogram,))
        if product == "raw" and image is not None and shape is not None:
            source = attributes.get("source", {})
            origin = (source.get(name) for name in ("name", "n_bytes", "sha256"))
            self._put_volume(tomogram, (*shape, *image.spacing_angstrom, *origin))
        row = (
            *key,
            published.generation,
            published.digest,
            attributes["kind"],
            json.dumps(attributes["recipe"], sort_keys=True),
            shape and json.dumps(shape),
            published.level_0.get("data_type"),
            image and image.n_levels,
            sum(n_bytes for n_bytes, _ in published.files.values()),
        )
        self.execute("INSERT INTO product VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        parents = [(*key, parent, digest) for parent, digest in attributes["parents"].items()]
        self._connection.executemany("INSERT INTO parent VALUES (?, ?, ?, ?)", parents)
        files = [
            (*key, path, n_bytes, crc, published.texts.get(path))
            for path, (n_bytes, crc) in published.files.items()
        ]
        self._connection.executemany("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?)", files)

    def remove(self, tomogram: str, product: str) -> None:
        """Forget a product, and the tomogram with its last one."""
        self.execute("DELETE FROM product WHERE tomogram = ? AND name = ?", (tomogram, product))
        if product == "raw":
            self._put_volume(tomogram, (None,) * 9)
        query = "SELECT 1 FROM product WHERE tomogram = tomogram.id"
        self.execute(f"DELETE FROM tomogram WHERE id = ? AND NOT EXISTS ({query})", (tomogram,))

    def _put_volume(self, tomogram: str, values: Row) -> None:
        self.execute(
            "UPDATE tomogram SET (n_z, n_y, n_x, spacing_z_angstrom, spacing_y_angstrom, "
            "spacing_x_angstrom, source_name, source_n_bytes, source_sha256) "
            "= (?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE id = ?",
            (*values, tomogram),
        )


@contextmanager
def open_catalog(collection: Path) -> Iterator[Catalog]:
    """Open the catalog of a collection to write; it is made if it is not there.

    Raises
    ------
    ConfigurationError
        If it would lie on a network file system, or is of a later otzi.
    Locked
        If others write for too long.
    VerificationError
        If the file is damaged.
    OutOfSpace, AccessDenied, TemporaryFailure
        If the file system fails.
    """
    check_place(collection)
    path = ledger_path(collection)
    with disk_errors(path, "opening"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _connected(path, f"{path.resolve().as_uri()}?mode=rwc") as connection:
        _use_wal(connection)
        catalog = Catalog(connection)
        with catalog.transaction():
            migrate(connection)
        yield catalog


@contextmanager
def read_catalog(collection: Path) -> Iterator[Catalog | None]:
    """Open the catalog of a collection to read, where there is one.

    Raises
    ------
    VerificationError
        If the file is damaged.
    """
    path = ledger_path(collection)
    if not path.is_file():
        yield None
        return
    with path.open("rb") as file:
        if file.read(20)[18:] not in (b"", _WAL_VERSIONS):
            raise VerificationError(
                f"the header of {path} is not as it was written: `otzi ledger rebuild COLLECTION` "
                "makes it again"
            )
    options = "mode=rw" if _has_room_beside(path) else "mode=ro&immutable=1"
    with _connected(path, f"{path.resolve().as_uri()}?{options}") as connection:
        yield Catalog(connection)


def _has_room_beside(path: Path) -> bool:
    """Tell whether SQLite can make the files beside a catalog that it wants even for reading.

    On a full disk it cannot, unless somebody who writes has made them.
    """
    if not os.access(path.parent, os.W_OK) or is_network(file_system(path)):
        return False
    if shutil.disk_usage(path.parent).free >= _BESIDE_BYTES:
        return True
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def largest_bytes(collection: Path) -> int:
    """Give what the products of the largest tomogram take; 0 where no catalog knows of one."""
    query = "SELECT sum(n_bytes) AS total FROM product GROUP BY tomogram ORDER BY total DESC"
    with read_catalog(collection) as catalog:
        rows = [] if catalog is None else catalog.execute(f"{query} LIMIT 1").fetchall()
    return int(rows[0][0]) if rows else 0


@contextmanager
def scratch_catalog() -> Iterator[Catalog]:
    """Open an empty catalog in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        yield Catalog(connection)


@contextmanager
def _connected(path: Path, address: str) -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        with closing(connection):
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
    except sqlite3.Error as error:
        raise _named(error, path) from error


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log, for which SQLite itself does not wait its turn."""
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    # The disk is too full for the index of the write-ahead log.
    return sqlite3.SQLITE_FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else code & 0xFF


def _named(error: sqlite3.Error, path: Path) -> OtziError:
    code = _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Locked(f"{path} is being written by others for {_BUSY_SECONDS:g} s: wait and retry")
    if code == sqlite3.SQLITE_FULL:
        return OutOfSpace(f"no space left for {path}: free some and run the command again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return AccessDenied(f"{path} cannot be opened to write ({error}): check its owner and mode")
    if code == sqlite3.SQLITE_IOERR:
        return TemporaryFailure(f"{path}: {error}: run the command again")
    said = " ".join(str(error).split())[:80]
    return VerificationError(
        f"{path} is damaged ({said}): `otzi ledger rebuild COLLECTION` makes it again"
    )
