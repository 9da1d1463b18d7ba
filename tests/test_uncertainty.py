"""Uncertainty: entropy as scipy gives it, lazy and as a product that resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from labelled import add_labels
from otzi.box import Box
from otzi.errors import NotFoundError, UsageError
from otzi.events import Event, Noted
from otzi.pseudo.uncertainty import entropy, uncertainty
from otzi_pipelines.label import uncertainty as module
from otzi_pipelines.label.uncertainty import (
    has_uncertainty,
    publish_uncertainty,
    read_uncertainty,
    stored_uncertainty,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SHAPE = (70, 20, 150)


def soft(shape: tuple[int, ...], n_classes: int = 3, seed: int = 0) -> np.ndarray:
    """Give uint8 labels that sum to 255, some of them certain."""
    rng = np.random.default_rng(seed)
    shares = rng.multinomial(255, rng.dirichlet(np.full(n_classes, 0.3)), shape)
    return np.moveaxis(shares, -1, 0).astype(np.uint8)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    tomo = add_tomogram(np.random.default_rng(1).normal(0, 9, SHAPE).astype(np.float32))
    add_labels(tomo, soft(SHAPE))
    return tomo


@given(st.integers(2, 6), st.integers(0, 2**32))
def test_entropy_is_that_of_scipy(n_classes: int, seed: int) -> None:
    probabilities = soft((3, 4, 5), n_classes, seed).astype(np.float32) / 255
    expected = scipy_entropy(probabilities.astype(float), base=n_classes, axis=0)
    np.testing.assert_allclose(entropy(probabilities), expected, atol=1e-5)


def test_entropy_of_the_extremes() -> None:
    certain = np.array([[1, 0.5, 1 / 3, 0], [0, 0.5, 1 / 3, 0], [0, 0, 1 / 3, 0]], np.float32)
    assert entropy(certain).tolist() == pytest.approx([0, np.log(2) / np.log(3), 1, 0])
    assert entropy(certain).dtype == np.float32


def test_stored_labels_may_be_floats() -> None:
    labels = soft((4, 5, 6))
    floats = labels.astype(np.float32) / 255
    np.testing.assert_array_equal(stored_uncertainty(floats), stored_uncertainty(labels))


def test_lazy_uncertainty_is_that_of_the_array(tomo: Tomogram) -> None:
    labels = tomo.labels("net")
    lazy = uncertainty(labels)
    assert lazy.chunks is not None
    assert lazy.dims == ("z", "y", "x")
    np.testing.assert_array_equal(lazy.coords["x"], labels.coords["x"])
    whole = entropy(labels.values)
    np.testing.assert_array_equal(lazy[33].values, whole[33])
    np.testing.assert_array_equal(uncertainty(labels.compute()), whole)
    by_class = labels.chunk(c=1)
    assert isinstance(by_class, xr.DataArray)
    np.testing.assert_array_equal(uncertainty(by_class), whole)


def test_the_product_is_the_entropy_of_the_labels(tomo: Tomogram) -> None:
    labels = tomo.array("labels/net")[...]
    expected = np.rint(255 * scipy_entropy(labels.astype(float), base=3, axis=0))
    assert publish_uncertainty(tomo, "net")
    stored = tomo.array("labels/net_uncertainty")[...]
    assert stored.shape == (1, *SHAPE)
    assert abs(stored[0] - expected).max() <= 1
    assert (stored[0][(labels == 255).any(axis=0)] == 0).all()
    image = tomo.image("labels/net_uncertainty")
    assert (image.channels, image.downsample) == (("uncertainty",), "mean")


def test_it_is_made_again_only_for_other_labels(tomo: Tomogram) -> None:
    events: list[Event] = []
    assert publish_uncertainty(tomo, "net")
    assert not publish_uncertainty(tomo, "net", events.append)
    assert events == [Noted("ts_001 has this labels/net_uncertainty already")]
    add_labels(tomo, soft(SHAPE, seed=5))
    assert not has_uncertainty(tomo, "net")
    box = Box((3, 0, 7), (9, 20, 140))
    of_labels = stored_uncertainty(tomo.read("labels/net", box))
    np.testing.assert_array_equal(read_uncertainty(tomo, "net", box), of_labels)
    assert publish_uncertainty(tomo, "net")
    np.testing.assert_array_equal(read_uncertainty(tomo, "net", box), of_labels)


def test_coarse_levels_are_means_of_the_product(tomo: Tomogram) -> None:
    box = Box.whole((35, 10, 75))
    mixed = read_uncertainty(tomo, "net", box, level=1)
    publish_uncertainty(tomo, "net")
    found = read_uncertainty(tomo, "net", box, level=1).astype(float)
    fine = read_uncertainty(tomo, "net", Box.whole(SHAPE)).astype(float)
    expected = fine.reshape(35, 2, 10, 2, 75, 2).mean(axis=(1, 3, 5))
    assert abs(found - expected).max() <= 0.5
    assert (mixed >= found - 2).mean() > 0.99  # entropy is concave: mixing only adds


def test_an_interrupted_run_goes_on(
    add_tomogram: Callable[..., Tomogram], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole shards of 256 voxels are kept."""
    shape = (20, 20, 300)
    tomo = add_tomogram(np.ones(shape, np.float32))
    add_labels(tomo, soft(shape))
    original, computed = module.stored_uncertainty, []

    def interrupted(labels: np.ndarray) -> Any:
        if labels.shape[-1] < 128:
            raise KeyboardInterrupt
        return original(labels)

    monkeypatch.setattr(module, "stored_uncertainty", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish_uncertainty(tomo, "net")
    assert not tomo.has("labels/net_uncertainty")

    def counted(labels: np.ndarray) -> Any:
        computed.append(labels.shape)
        return original(labels)

    monkeypatch.setattr(module, "stored_uncertainty", counted)
    publish_uncertainty(tomo, "net")
    assert computed == [(3, 20, 20, 44)]
    expected = stored_uncertainty(tomo.array("labels/net")[...])
    np.testing.assert_array_equal(tomo.array("labels/net_uncertainty")[0], expected)


def test_hard_labels_are_refused(tomo: Tomogram) -> None:
    add_labels(tomo, np.zeros(SHAPE, np.uint8), "hard")
    with pytest.raises(UsageError, match=r"labels/hard of ts_001 are hard .* --name hard --soft"):
        publish_uncertainty(tomo, "hard")
    with pytest.raises(NotFoundError, match="no labels/none"):
        publish_uncertainty(tomo, "none")
