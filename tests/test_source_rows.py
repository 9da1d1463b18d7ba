"""Sources in the ledger: kept as they were put; a catalog without them is read all the same."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.ledger.rebuild import rebuild
from otzi.ledger.sources import FileState, Quiet, SourceRow, Sources, read_source_rows
from otzi.ledger.sqlite import Catalog, ledger_path, open_catalog, scratch_catalog
from otzi.ledger.tables import migrate

if TYPE_CHECKING:
    from commands import Otzi
    from otzi.collection import Collection

ROW = SourceRow(Path("/in/ä.mrc"), Path("/in"), "seen", FileState(1, 2, 3, 4), Quiet("boot", 5.5))

numbers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=9)
rows = st.builds(
    SourceRow,
    path=st.sampled_from([Path("/in/a"), Path("/in/b c"), Path("/in/ü/d")]),
    folder=st.just(Path("/in")),
    state=st.sampled_from(["seen", "settling", "sealed", "quarantined"]),
    file=st.builds(FileState, numbers, numbers, numbers, numbers),
    quiet=st.builds(Quiet, texts, st.floats(0, 1e9)),
    revision=st.integers(1, 3),
    attempts=st.integers(0, 3),
    evidence=st.none() | texts,
    reason=st.none() | texts,
    sha256=st.none() | texts,
    tomogram=st.none() | texts,
    pipeline=st.none() | texts,
    detail=st.dictionaries(texts, st.integers() | texts),
    settled_at=st.none() | texts,
)


@given(st.lists(rows, max_size=6))
def test_what_is_put_is_what_is_given_back(put: list[SourceRow]) -> None:
    expected = {(row.path, row.revision): row for row in put}
    with scratch_catalog() as catalog:
        sources = Sources(catalog)
        for row in put:
            sources.put(row)
        found = sources.rows()
        assert {(row.path, row.revision): row for row in found} == expected
        assert [(str(row.path), row.revision) for row in found] == sorted(
            (str(path), revision) for path, revision in expected
        )
        for row in found:
            sources.remove(row)
        assert sources.rows() == []


def test_what_happens_is_logged(collection: Collection) -> None:
    with open_catalog(collection.workspace) as catalog, catalog.transaction():
        Sources(catalog).put(ROW)
        Sources(catalog).put(replace(ROW, tomogram="a"), "sealed", reason="why")
        events = [row for row in catalog.dump() if row["table"] == "event"]
    (event,) = events
    assert (event["n"], event["kind"], event["tomogram"], event["stage"]) == (
        1, "sealed", "a", "watch",
    )  # fmt: skip
    assert json.loads(event["detail"]) == {
        "source": "/in/ä.mrc", "revision": 1, "reason": "why",
    }  # fmt: skip


def test_what_fails_is_not_written(collection: Collection) -> None:
    def fail(catalog: Catalog) -> None:
        with catalog.transaction():
            Sources(catalog).put(ROW, "sealed")
            raise KeyError

    with open_catalog(collection.workspace) as catalog:
        with pytest.raises(KeyError):
            fail(catalog)
        assert Sources(catalog).rows() == []
        assert not [row for row in catalog.dump() if row["table"] == "event"]


def test_a_rebuild_leaves_what_was_going_on(collection: Collection) -> None:
    with open_catalog(collection.workspace) as catalog, catalog.transaction():
        Sources(catalog).put(ROW, "sealed")
    rebuild(collection.workspace)
    assert read_source_rows(collection.workspace) == [ROW]


def test_a_catalog_of_an_older_otzi_has_none_until_it_is_written(
    collection: Collection, otzi: Otzi
) -> None:
    path = ledger_path(collection.workspace)
    with open_catalog(collection.workspace) as catalog:
        attributes = catalog.attributes
    assert attributes is not None
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        migrate(connection, 1)
        Catalog(connection).put_attributes(attributes)
        connection.execute("COMMIT")
    assert read_source_rows(collection.workspace) == []
    assert otzi("status", collection.path).code == 0
    assert otzi("verify", collection.path).code == 0
    with open_catalog(collection.workspace) as catalog, catalog.transaction():
        Sources(catalog).put(ROW)
    assert read_source_rows(collection.workspace) == [ROW]


def test_no_catalog_no_rows(tmp_path: Path) -> None:
    assert read_source_rows(tmp_path) == []


def test_inodes_that_sqlite_cannot_hold() -> None:
    class Status:
        st_ino, st_size, st_mtime_ns, st_ctime_ns = 2**64 - 1, 1, 2, 3

    state = FileState.of(Status())  # type: ignore[arg-type]
    assert state == FileState(2**63 - 1, 1, 2, 3)
