"""The stages in a real PostgreSQL server: as in SQLite, and shared by several coordinators."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.collection import create_collection
from otzi.errors import ConfigurationError, TemporaryFailure, UsageError
from otzi.ledger.postgres import checked_address, postgres_stages
from otzi.ledger.stages import Lease, StageLedger
from otzi_pipelines.run.coordinator import run_collection
from postgres_server import find_programs, running_server
from run_stages import Times, pipeline
from test_stages import (  # noqa: F401  the same tests, by the fixture of this module
    test_a_failure_that_is_over_is_the_second_attempt,
    test_a_lease_that_is_over_goes_to_the_next,
    test_a_new_input_shuts_out_who_works_on_the_old_one,
    test_a_released_lease_was_no_attempt,
    test_a_renewed_lease_is_not_over,
    test_a_stage_is_claimed_once_and_committed,
    test_another_input_or_a_lost_output_makes_it_ready_again,
    test_every_report_is_logged_and_none_of_the_dead,
    test_quarantine_holds_until_it_is_lifted,
    test_the_dead_are_buried_and_after_many_the_stage_is_blamed,
    test_what_is_announced_stands_as_ready_until_it_is_claimed_or_withdrawn,
    test_what_may_pass_is_tried_again_when_it_is_time,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otzi.collection import Collection
    from otzi.tomogram import Tomogram


@pytest.fixture(scope="module")
def address(require: Callable[[str, str], None]) -> Iterator[str]:
    pytest.importorskip("psycopg")
    programs = find_programs()
    if programs is None:
        require("postgres", "no PostgreSQL server is installed")
        return
    with running_server(programs) as found:
        yield found


@pytest.fixture
def stages(address: str, collection: Collection) -> StageLedger:
    # Collections of one second and the same classes are told apart by their paths here only.
    stages = postgres_stages(address, collection.path)
    for row in stages.rows():
        _delete(address, collection.path, row.tomogram)
    return stages


def _delete(address: str, collection: Path, tomogram: str) -> None:
    with postgres_stages(address, collection)._transaction() as run:
        run("DELETE FROM stage WHERE tomogram = ?", (tomogram,))
        run("DELETE FROM event WHERE tomogram = ?", (tomogram,))


def test_an_address_is_told_from_a_folder() -> None:
    for address in ("postgresql://otzi@db/otzi", "postgres://db", None):
        assert checked_address(address) == address
    with pytest.raises(UsageError, match="postgresql://USER"):
        checked_address("/var/lib/otzi")


def test_of_many_who_claim_at_the_same_time_one_gets_each_stage(
    address: str, collection: Collection, stages: StageLedger
) -> None:
    names = [f"ts_{n:02}" for n in range(20)]

    def work(owner: int) -> list[str]:
        mine = postgres_stages(address, collection.path)
        won = []
        for name in names:
            claimed = mine.claim(name, "view", "in", None, owner=str(owner), lease_seconds=60)
            if isinstance(claimed, Lease) and mine.commit(claimed, f"by {owner}", 1):
                won.append(name)
        return won

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(work, range(6)))
    assert sorted(chain.from_iterable(won)) == names
    rows = stages.rows()
    assert [(row.tomogram, row.state, row.token) for row in rows] == [
        (name, "committed", 1) for name in names
    ]


def test_collections_in_one_database_know_nothing_of_each_other(
    address: str, collection: Collection, stages: StageLedger, tmp_path: Path
) -> None:
    other = create_collection(tmp_path / "other", ("background", "gold"))
    theirs = postgres_stages(address, other.path)
    stages.claim("ts_1", "view", "in", None, owner="me", lease_seconds=60)
    assert theirs.rows() == []
    assert [row.tomogram for row in stages.rows()] == ["ts_1"]
    again = postgres_stages(address, collection.path)
    assert again.rows()[0].owner == "me"


def test_coordinators_share_a_collection(
    address: str,
    add_tomogram: Callable[..., Tomogram],
    stages: StageLedger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever ends first waits for what the others hold: each ends when all is done."""
    monkeypatch.setattr("otzi_pipelines.run.stage_worker._LOOK_AGAIN_SECONDS", 0.05)
    names = [f"ts_{n}" for n in range(6)]
    for name in names:
        tomo = add_tomogram(np.ones((4, 5, 6), np.uint8), name)
    path = tomo.collection.path
    meet = threading.Barrier(3, timeout=20)
    first = threading.local()

    def during(tomogram: str) -> None:
        if not hasattr(first, "met"):
            first.met = True
            meet.wait()

    own = [Times("twice", during=during) for _ in range(3)]

    def coordinate(stage: Times) -> int:
        return run_collection(path, pipeline(stage, volumes=1), ledger=address).exit_code

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(coordinate, own)) == [0, 0, 0]
    assert all(stage.ran for stage in own)
    assert sum((stage.ran for stage in own), Counter()) == dict.fromkeys(names, 1)
    assert {row.tomogram: row.state for row in stages.rows()} == dict.fromkeys(names, "committed")


def test_a_server_that_is_not_there_may_come_back(collection: Collection, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(TemporaryFailure, match="--ledger") as failure:
        postgres_stages(f"postgresql://otzi@/postgres?host={tmp_path}", collection.path)
    assert failure.value.exit_code == 75


def test_without_psycopg_it_says_what_to_install(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"otzi\[postgres\]"):
        postgres_stages("postgresql:///x", collection.path)
