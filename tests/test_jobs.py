"""Verbs that run while somebody looks."""

from __future__ import annotations

import time
from threading import Event
from typing import TYPE_CHECKING

import pytest

from otzi.errors import Locked
from otzi_viewers.jobs import Job, Jobs

if TYPE_CHECKING:
    from pathlib import Path


def ended(jobs: Jobs) -> Job:
    deadline = time.monotonic() + 60
    while (job := jobs.last) is None or job.state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job


def test_a_job_ends_with_what_follows_of_it() -> None:
    jobs, done = Jobs(), []
    assert jobs.last is None
    jobs.start("look", [["--version"], ["--version"]], lambda: done.append(1))
    job = ended(jobs)
    assert job == Job("look", "done")
    assert job.seconds > 0
    assert job.to_json() == {"name": "look", "state": "done", "text": "", "seconds": job.seconds}
    assert done == [1]


def test_a_failure_says_why_and_nothing_follows(tmp_path: Path) -> None:
    jobs, done = Jobs(), []
    jobs.start("look", [["ls", str(tmp_path / "none")], ["--version"]], lambda: done.append(1))
    job = ended(jobs)
    assert job.state == "failed"
    assert "no collection at" in job.text
    assert done == []


def test_what_a_job_does_is_said_while_it_does_it() -> None:
    jobs, seen, go_on = Jobs(), [], Event()

    def begin() -> None:
        seen.append(jobs.last.to_json())
        go_on.wait(60)

    jobs.start("look", [["--version"]], lambda: seen.append(jobs.last.to_json()), begin)
    first = jobs.last.to_json()["seconds"]
    assert jobs.last.to_json()["seconds"] > first
    go_on.set()
    assert ended(jobs).state == "done"
    assert [said["text"] for said in seen] == ["what is in view", "otzi --version"]
    assert seen[1]["seconds"] > seen[0]["seconds"]


def test_what_follows_can_fail_too() -> None:
    jobs = Jobs()
    jobs.start("look", [], lambda: 1 / 0)
    assert ended(jobs) == Job("look", "failed", "division by zero")


def test_one_job_at_a_time_and_none_after_closing() -> None:
    jobs = Jobs()
    jobs.start("wait", [["--version"]] * 50, lambda: None)
    with pytest.raises(Locked, match="wait runs: wait until it has ended"):
        jobs.start("another", [], lambda: None)
    jobs.close()
    assert ended(jobs).state == "failed"
