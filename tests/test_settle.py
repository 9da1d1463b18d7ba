"""Completeness: by name, by arithmetic, by quiet; nothing is taken that lacks one of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrc_files import mrc_bytes
from otzi_pipelines.watch.settle import (
    Decision,
    Look,
    Patience,
    decide,
    has_zero_tail,
    is_temporary,
    look_at,
)
from otzi_pipelines.watch.sidecars import Mdoc

DATA = mrc_bytes(np.arange(1, 121).reshape(4, 5, 6).astype(np.int16), extended=b"ext")
PATIENCE = Patience(settle_seconds=30, stall_seconds=600)


@pytest.mark.parametrize(
    "name",
    [
        ".ts_001.mrc.Xy12Za", "ts_001.mrc.tmp", "ts_001.mrc.part", "ts_001.mrc.partial",
        "ts_001.mrc.filepart", "ts_001.mrc.downloading", "ts_001.mrc_downloading", "~ts_001.mrc",
        "TS_001.MRC.PART", "._ts_001.mrc",
    ],
)  # fmt: skip
def test_names_on_their_way(name: str) -> None:
    assert is_temporary(name)


@pytest.mark.parametrize("name", ["ts_001.mrc", "part_001.mrc", "tmp.mrc", "a~.rec", "x.mrc.gz"])
def test_names_that_are_final(name: str) -> None:
    assert not is_temporary(name)


@given(n_bytes=st.integers(0, len(DATA) + 9))
def test_a_file_is_whole_at_exactly_one_length(n_bytes: int) -> None:
    data = (DATA + bytes(9))[:n_bytes]
    look = look_at(data[:1024], n_bytes, "a.mrc")
    expected = "short" if n_bytes < len(DATA) else "whole" if n_bytes == len(DATA) else "wrong"
    assert look.fit == expected
    assert (look.header is not None) == (expected == "whole")
    assert ("a.mrc" in look.reason) == (expected != "whole")


def test_what_will_be_refused_says_why() -> None:
    for start, says in (
        (bytes(1024), "a.mrc"),
        (mrc_bytes(np.ones((4, 5, 6), np.int16), mode=99), "mode 99"),
        (b"no tomogram " * 100, "a.mrc"),
    ):
        look = look_at(start[:1024], 1024 + 240, "a.mrc")
        assert look.fit == "wrong"
        assert says in look.reason


def test_an_mdoc_promises_more_sections_than_there_are() -> None:
    assert look_at(DATA[:1024], len(DATA), "a.mrc", Mdoc(4)).fit == "whole"
    assert look_at(DATA[:1024], len(DATA), "a.mrc", Mdoc(41, image_size=(12, 10))).fit == "whole"
    look = look_at(DATA[:1024], len(DATA), "a.mrc", Mdoc(41, image_size=(6, 5)))
    assert (look.fit, look.reason) == ("short", "a.mrc has 4 sections, its mdoc names 41")


looks = st.sampled_from(["whole", "short", "wrong"]).map(lambda fit: Look(fit, "why"))


@given(
    look=st.none() | looks,
    quiet=st.none() | st.floats(0, 2000),
    has_evidence=st.booleans(),
)
def test_nothing_is_taken_before_its_time(
    look: Look | None, quiet: float | None, has_evidence: bool
) -> None:
    """The rules, one by one, as the oracle."""
    decision = decide(look, quiet, PATIENCE, has_evidence=has_evidence)
    fit = "whole" if look is None else look.fit
    is_quiet = quiet is not None and quiet >= PATIENCE.settle_seconds
    is_stalled = quiet is not None and quiet >= PATIENCE.stall_seconds
    if fit == "whole":
        assert decision.do == ("take" if is_quiet or has_evidence else "wait")
    elif fit == "short":
        assert decision.do == ("refuse" if is_stalled else "wait")
    else:
        assert decision.do == ("refuse" if is_quiet else "wait")
    assert decision.is_stalled == (fit == "short" and is_stalled)
    assert fit == "whole" or "why" in decision.reason


def test_a_stall_says_for_how_long() -> None:
    decision = decide(Look("short", "a.mrc has 3 of 9"), 601.4, PATIENCE, has_evidence=True)
    assert decision == Decision(
        "refuse", "a.mrc has 3 of 9; nothing came for 601 s: copy it again", is_stalled=True
    )


def test_a_tail_of_zeros() -> None:
    assert has_zero_tail(bytes(9))
    assert not has_zero_tail(bytes(8) + b"\x01")
    assert not has_zero_tail(b"")
