"""The stages of a ledger: one holder at a time, and a stale one is never heard."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from otzi.ledger.sqlite import ledger_path
from otzi.ledger.stages import (
    MOST_DEATHS,
    Lease,
    StageLedger,
    StageRow,
    embedded_stages,
    read_stages,
)
from otzi.ledger.tables import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otzi.collection import Collection


@pytest.fixture
def stages(collection: Collection) -> StageLedger:
    return embedded_stages(collection.path)


def _claim(
    stages: StageLedger,
    digest: str = "in",
    output: str | None = None,
    *,
    owner: str = "me",
    seconds: float = 60,
) -> Lease | StageRow:
    return stages.claim("ts_1", "view", digest, output, owner=owner, lease_seconds=seconds)


def _lease(stages: StageLedger, digest: str = "in", **more: Any) -> Lease:
    claimed = _claim(stages, digest, **more)
    assert isinstance(claimed, Lease)
    return claimed


def _row(stages: StageLedger) -> StageRow:
    (row,) = stages.rows()
    return row


def test_a_stage_is_claimed_once_and_committed(stages: StageLedger) -> None:
    lease = _lease(stages)
    assert (lease.tomogram, lease.stage, lease.attempt) == ("ts_1", "view", 1)
    other = _claim(stages, owner="you")
    assert isinstance(other, StageRow)
    assert (other.state, other.owner) == ("leased", "me")
    assert other.wait_seconds is not None
    assert 50 < other.wait_seconds <= 60
    assert stages.commit(lease, "out", 1.5)
    assert not stages.commit(lease, "out", 1.5)
    done = _claim(stages, output="out")
    assert isinstance(done, StageRow)
    assert (done.state, done.output_digest, done.seconds) == ("committed", "out", 1.5)
    assert (done.owner, done.wait_seconds, done.error) == (None, None, None)


def test_another_input_or_a_lost_output_makes_it_ready_again(stages: StageLedger) -> None:
    stages.commit(_lease(stages), "out", 1)
    assert isinstance(_claim(stages), StageRow)
    again = _lease(stages, output="")
    assert stages.commit(again, "out", 1)
    changed = _lease(stages, "in 2", output="out")
    assert changed.attempt == 1
    assert changed.token > again.token


def test_a_new_input_shuts_out_who_works_on_the_old_one(stages: StageLedger) -> None:
    old = _lease(stages)
    new = _lease(stages, "in 2", owner="you")
    assert stages.renew([old, new], 60) == {old}
    assert not stages.commit(old, "out of old", 1)
    assert not stages.fail(old, "broken", None)
    assert not stages.release(old)
    assert stages.commit(new, "out", 1)
    assert _row(stages).output_digest == "out"


def test_a_lease_that_is_over_goes_to_the_next(stages: StageLedger) -> None:
    old = _lease(stages, seconds=-1)
    new = _lease(stages, owner="you")
    assert (new.attempt, _row(stages).deaths) == (1, 1)
    assert not stages.commit(old, "out", 1)
    assert stages.commit(new, "out", 1)


def test_a_renewed_lease_is_not_over(stages: StageLedger) -> None:
    lease = _lease(stages, seconds=-1)
    assert stages.renew([lease], 60) == set()
    assert isinstance(_claim(stages, owner="you"), StageRow)


def test_what_may_pass_is_tried_again_when_it_is_time(stages: StageLedger) -> None:
    assert stages.fail(_lease(stages), "disk away", 30)
    row = _claim(stages)
    assert isinstance(row, StageRow)
    assert (row.state, row.error, row.attempt) == ("failed", "disk away", 1)
    assert row.wait_seconds is not None
    assert 20 < row.wait_seconds <= 30
    assert isinstance(_claim(stages, "in 2"), Lease)


def test_a_failure_that_is_over_is_the_second_attempt(stages: StageLedger) -> None:
    stages.fail(_lease(stages), "disk away", -1)
    assert _lease(stages).attempt == 2


def test_every_report_is_logged_and_none_of_the_dead(stages: StageLedger) -> None:
    late = _lease(stages, seconds=-1)
    stages.fail(_lease(stages, owner="you"), "away", -1)
    stages.commit(late, "wrong", 1)
    stages.release(_lease(stages))
    stages.commit(_lease(stages), "out", 2.5)
    with stages._transaction() as run:
        rows = run("SELECT tomogram, stage, kind, detail FROM event ORDER BY n", ())
    assert {row[:2] for row in rows} == {("ts_1", "view")}
    assert [(kind, json.loads(detail)) for *_, kind, detail in rows] == [
        ("failed", {"attempt": 1, "error": "away"}),
        ("released", {"attempt": 2}),
        ("committed", {"attempt": 2, "output_digest": "out", "seconds": 2.5}),
    ]


def test_quarantine_holds_until_it_is_lifted(stages: StageLedger) -> None:
    assert stages.fail(_lease(stages), "no strokes of two classes", None)
    row = _claim(stages)
    assert isinstance(row, StageRow)
    assert (row.state, row.error) == ("quarantined", "no strokes of two classes")
    assert stages.retry("ts_2") == 0
    assert stages.retry("ts_1") == 1
    assert _lease(stages).attempt == 1


def test_a_released_lease_was_no_attempt(stages: StageLedger) -> None:
    assert stages.release(_lease(stages))
    assert _row(stages).state == "ready"
    assert _lease(stages).attempt == 1


def test_the_dead_are_buried_and_after_many_the_stage_is_blamed(stages: StageLedger) -> None:
    for n in range(MOST_DEATHS):
        lease = _lease(stages)
        assert stages.bury("you") == 0
        assert stages.bury("me") == 1
        assert not stages.commit(lease, "out", 1)
        assert _row(stages).deaths == n + 1
    row = _claim(stages)
    assert isinstance(row, StageRow)
    assert row.state == "quarantined"
    assert row.error is not None
    assert f"died {MOST_DEATHS} times" in row.error


def test_what_is_announced_stands_as_ready_until_it_is_claimed_or_withdrawn(
    stages: StageLedger,
) -> None:
    stages.announce([("ts_1", "view", 0), ("ts_2", "view", 0)])
    assert [(row.tomogram, row.state) for row in stages.rows()] == [
        ("ts_1", "ready"), ("ts_2", "ready"),
    ]  # fmt: skip
    stages.commit(_lease(stages), "out", 1)
    stages.withdraw([("ts_1", "view"), ("ts_2", "view")])
    assert _row(stages).state == "committed"
    done = _row(stages)
    stages.announce([("ts_1", "view", done.token - 1)])
    assert _row(stages) == done
    stages.announce([("ts_1", "view", done.token)])
    assert (_row(stages).state, _row(stages).seconds) == ("ready", 1)
    lease = _lease(stages)
    stages.announce([("ts_1", "view", lease.token)])
    assert _row(stages).state == "leased"


def test_reading_writes_nothing(collection: Collection) -> None:
    _lease(embedded_stages(collection.path))
    before = ledger_path(collection.path).read_bytes()
    assert [row.state for row in read_stages(collection.path)] == ["leased"]
    assert ledger_path(collection.path).read_bytes() == before


def test_a_catalog_without_stages_has_none(collection: Collection) -> None:
    path = ledger_path(collection.path)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE stage")
    connection.commit()
    connection.close()
    assert read_stages(collection.path) == []
    path.unlink()
    assert read_stages(collection.path) == []


class StagesBesideAnOracle(RuleBasedStateMachine):
    """One stage, any number of holders, a clock that jumps; beside it the plain rules."""

    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection)
        self.connection.execute("CREATE TABLE clock AS SELECT 0.0 AS t")

        @contextmanager
        def transaction() -> Iterator[Any]:
            yield lambda sql, values: self.connection.execute(sql, values).fetchall()

        self.stages = StageLedger(transaction, "(SELECT t FROM clock)")
        self.t = 0.0
        self.digest: str | None = None
        self.state, self.holder, self.until, self.retry_at = "ready", None, 0.0, 0.0
        self.attempt, self.deaths, self.output = 0, 0, None

    def teardown(self) -> None:
        self.connection.close()

    def _die(self) -> None:
        self.deaths, self.attempt, self.holder = self.deaths + 1, self.attempt - 1, None
        self.state = "quarantined" if self.deaths >= MOST_DEATHS else "ready"

    @rule(seconds=st.floats(-50, 100))
    def jump(self, seconds: float) -> None:
        self.t += seconds
        self.connection.execute("UPDATE clock SET t = ?", (self.t,))

    @rule(
        target=leases,
        digest=st.sampled_from("ab"),
        output=st.sampled_from(["x", "y", None]),
        seconds=st.floats(0, 100),
    )
    def claim(self, digest: str, output: str | None, seconds: float) -> Lease | None:
        if digest != self.digest:
            self.digest, self.state, self.holder = digest, "ready", None
            self.attempt = self.deaths = 0
        if self.state == "committed" and output not in (None, self.output):
            self.state, self.attempt, self.deaths = "ready", 0, 0
        if self.state == "leased" and self.until < self.t:
            self._die()
        is_free = self.state == "ready" or (self.state == "failed" and self.retry_at <= self.t)
        claimed = _claim(self.stages, digest, output, seconds=seconds)
        assert isinstance(claimed, Lease) == is_free
        if not isinstance(claimed, Lease):
            return None
        self.state, self.holder, self.until = "leased", claimed, self.t + seconds
        self.attempt += 1
        assert claimed.attempt == self.attempt
        return claimed

    @rule(lease=leases, seconds=st.floats(0, 100))
    def renew(self, lease: Lease | None, seconds: float) -> None:
        if lease is None:
            return
        lost = self.stages.renew([lease], seconds)
        assert lost == (set() if lease == self.holder else {lease})
        if not lost:
            self.until = self.t + seconds

    @rule(lease=leases, output=st.sampled_from("xy"))
    def commit(self, lease: Lease | None, output: str) -> None:
        if lease is None:
            return
        is_heard = lease == self.holder
        assert self.stages.commit(lease, output, 1) == is_heard
        if is_heard:
            self.state, self.holder, self.output = "committed", None, output

    @rule(lease=leases, seconds=st.none() | st.floats(0, 50))
    def fail(self, lease: Lease | None, seconds: float | None) -> None:
        if lease is None:
            return
        is_heard = lease == self.holder
        assert self.stages.fail(lease, "why", seconds) == is_heard
        if is_heard:
            self.state, self.holder = "quarantined" if seconds is None else "failed", None
            self.retry_at = self.t + (seconds or 0)

    @rule(lease=leases)
    def release(self, lease: Lease | None) -> None:
        if lease is None:
            return
        is_heard = lease == self.holder
        assert self.stages.release(lease) == is_heard
        if is_heard:
            self.state, self.holder, self.attempt = "ready", None, self.attempt - 1

    @rule()
    def bury(self) -> None:
        assert self.stages.bury("me") == (self.holder is not None)
        if self.holder is not None:
            self._die()

    @invariant()
    def the_row_is_as_the_rules_say(self) -> None:
        rows = self.stages.rows() if hasattr(self, "stages") else []
        for row in rows:
            assert row.state == self.state
            assert (row.attempt, row.deaths) == (self.attempt, self.deaths)
            assert (row.owner == "me") == (self.holder is not None)


TestStagesBesideAnOracle = StagesBesideAnOracle.TestCase
TestStagesBesideAnOracle.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
