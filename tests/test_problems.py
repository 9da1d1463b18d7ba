"""What a page reports becomes errors; what it makes up does not become anything else."""

from __future__ import annotations

from typing import Any

import pytest

from otzi.errors import (
    ConfigurationError,
    CorruptShard,
    OtziError,
    TemporaryFailure,
    UsageError,
    VerificationError,
)
from otzi_viewers.problems import page_problems


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("shader", ConfigurationError, "layer slices: its shader does not compile"),
        ("data", VerificationError, "layer slices cannot be shown: why so: run `otzi verify`"),
        ("chunks", CorruptShard, "why so: run `otzi verify`"),
        ("graphics", TemporaryFailure, "reload the page"),
    ],
)
def test_each_kind_is_an_error_of_its_own(kind: str, error: type[OtziError], says: str) -> None:
    entry = {"kind": kind, "layer": "slices", "text": "why\n  so"}
    (found,) = page_problems({"problems": [entry]})
    assert type(found) is error
    assert says in str(found)
    assert "\n" not in str(found)


def test_texts_are_cut() -> None:
    (found,) = page_problems({"problems": [{"kind": "data", "text": "x" * 10_000}]})
    assert len(str(found)) < 700


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"problems": "none"},
        {"problems": ["text"]},
        {"problems": [{"kind": "other"}]},
        {"problems": [{"kind": "data"}] * 101},
    ],
)
def test_what_is_no_report_is_refused(report: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        page_problems(report)
