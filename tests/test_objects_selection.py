"""Which voxels are of which class: thresholds, ties, hard labels, ramps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelled import add_labels
from otzi.box import Box
from otzi.errors import NotFoundError, UsageError
from otzi_pipelines.objects.selection import class_map, select
from otzi_pipelines.ramps.estimate import estimate_ramps

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SHAPE = (6, 20, 30)


def soft(seed: int = 0) -> np.ndarray:
    shares = np.random.default_rng(seed).multinomial(255, (0.5, 0.3, 0.2), SHAPE)
    return np.moveaxis(shares, -1, 0).astype(np.uint8)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    tomo = add_tomogram(np.zeros(SHAPE, np.int8))
    with tomo.write(
        "probs/unet", dtype="u1", channels=tomo.classes.names, recipe={}, parents=("raw",)
    ) as writer:
        writer[:, :, :, :] = soft()
    return tomo


@given(st.integers(0, 2**32), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_voxel_is_of_the_most_probable_class_that_reaches_its_threshold(
    seed: int, first: float, second: float
) -> None:
    values = soft(seed)[1:, 0, 0]
    for stored in (values, (values / 255).astype(np.float32), (values / 255).astype(np.float16)):
        kinds, codes = class_map([one[None, None] for one in stored], (first, second))
        for i, pair in enumerate(np.moveaxis(stored, -1, 0)):
            exact = [int(v) / 255 if v.dtype == np.uint8 else np.float32(v) for v in pair]
            limits = [first, second] if stored.dtype == np.uint8 else np.float32([first, second])
            reach = [(p, -kind) for kind, p in enumerate(exact, 1) if p >= limits[kind - 1] and p]
            assert kinds[0, 0, i] == (-max(reach)[1] if reach else 0)
            if stored.dtype == np.uint8:
                assert codes[0, 0, i] == (round(max(reach)[0] * 255) if reach else 0)


def test_thresholds_are_reached_to_the_step() -> None:
    every = np.arange(256, dtype=np.uint8)[None, None]
    for code in range(1, 256):
        kinds, _ = class_map([every], (code / 255,))
        assert int(kinds.argmax()) == code


def test_what_is_no_number_is_of_no_class() -> None:
    stored = np.array([np.nan, 0.9, 0.0], np.float32)[None, None]
    kinds, codes = class_map([stored], (0.5,))
    assert kinds.tolist() == [[[0, 1, 0]]]
    assert codes[0, 0, 0] == 0


def test_the_default_is_where_a_class_begins_to_be_seen(tomo: Tomogram) -> None:
    assert select(tomo, "probs/unet", ("lumen", "membrane")).thresholds == (0.5, 0.5)
    estimate_ramps(tomo, "unet")
    ramps = tomo.attributes("ramps/unet")["ramps"]
    found = select(tomo, "probs/unet", ("lumen", "membrane"))
    assert found.thresholds == (ramps["lumen"]["low"], ramps["membrane"]["low"])
    assert found.channels == (2, 1)
    assert select(tomo, "probs/unet", ("lumen",), 0.25).thresholds == (0.25,)
    with tomo.write(
        "probs/unet", dtype="u1", channels=tomo.classes.names, recipe={}, parents=("raw",)
    ) as writer:
        writer[:, :, :, :] = soft(1)
    assert select(tomo, "probs/unet", ("lumen",)).thresholds == (0.5,)  # the ramps are of others


def test_labels_hard_and_soft(tomo: Tomogram) -> None:
    hard = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)
    hard[0, 0] = 255  # nothing is known
    add_labels(tomo, hard, "hard")
    found = select(tomo, "labels/hard", ("lumen", "background"))
    assert (found.channels, found.thresholds) == ((2, 0), None)
    box = Box((0, 0, 3), (5, 7, 30))
    kinds, _ = found.read(tomo.array("labels/hard"), box)
    part = hard[box.slices]
    np.testing.assert_array_equal(kinds, np.select([part == 2, part == 0], [1, 2], 0))
    add_labels(tomo, soft(), "soft")
    found = select(tomo, "labels/soft", ("membrane",))
    kinds, codes = found.read(tomo.array("labels/soft"), box)
    np.testing.assert_array_equal(kinds, soft()[1][box.slices] >= 128)
    np.testing.assert_array_equal(codes, np.where(kinds, soft()[1][box.slices], 0))
    with pytest.raises(UsageError, match="labels/hard of ts_001 are hard labels: leave"):
        select(tomo, "labels/hard", ("lumen",), 0.5)


def test_what_cannot_be_meant_is_refused(tomo: Tomogram) -> None:
    with pytest.raises(UsageError, match="give probs/NAME or labels/NAME"):
        select(tomo, "raw", ("lumen",))
    with pytest.raises(
        NotFoundError, match="has no class 'spikes': it has background, membrane, lumen"
    ):
        select(tomo, "probs/unet", ("spikes",))
    with pytest.raises(NotFoundError, match="no probs/none"):
        select(tomo, "probs/none", ("lumen",))
    for classes in ((), ("lumen", "lumen")):
        with pytest.raises(UsageError, match="name each once"):
            select(tomo, "probs/unet", classes)
    for threshold in (0.0, 1.1, float("nan")):
        with pytest.raises(UsageError, match="a probability above 0"):
            select(tomo, "probs/unet", ("lumen",), threshold)
