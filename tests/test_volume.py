"""The packed volume: channels in the scene's order, the density, the occluder, the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from otzi.errors import ConfigurationError, MemoryBudgetError
from otzi_viewers.render.density import low_passed, normalised_density
from otzi_viewers.render.scene import Density
from otzi_viewers.render.source import VolumeSource
from otzi_viewers.render.transfer import transfer_of
from otzi_viewers.render.volume import Volume, affordable_level, load_volume, occluder, packed
from pictures import add_probs, look

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SHAPE = (65, 33, 40)
CLASSES = ("background", "membrane", "lumen")


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    random = np.random.default_rng(2)
    made = add_tomogram(random.normal(0, 1000, SHAPE).astype(np.int16))
    values = random.integers(0, 128, (2, *SHAPE)).astype(np.uint8)
    add_probs(made, "net", values, CLASSES)
    return made


def test_channels_follow_the_classes_asked_for_and_then_the_density(tomo: Tomogram) -> None:
    density = Density(smoothing=1, window=(1, 99))
    volume = load_volume(VolumeSource(tomo, "net", ("lumen", "membrane"), density))
    assert volume.data.dtype == np.uint8
    np.testing.assert_array_equal(volume.data[..., 0], tomo.array("probs/net")[2])
    np.testing.assert_array_equal(volume.data[..., 1], tomo.array("probs/net")[1])
    expected = normalised_density(tomo.array("raw")[...], density)
    np.testing.assert_array_equal(volume.data[..., 2], np.rint(expected * 255))
    np.testing.assert_allclose(volume.spacing_voxels, [2, 1, 1])
    np.testing.assert_allclose(volume.extent_voxels, [130, 33, 40])
    assert volume.voxel_angstrom == 10


def test_a_level_fills_the_same_box_with_larger_voxels(tomo: Tomogram) -> None:
    volume = load_volume(VolumeSource(tomo, "net", ("lumen",), Density(smoothing=5), level=1))
    assert volume.data.shape == (32, 16, 20, 2)
    np.testing.assert_allclose(volume.spacing_voxels, [4, 2, 2])
    np.testing.assert_allclose(volume.extent_voxels, [130, 33, 40])
    raw = tomo.array("raw", 1)[...]
    expected = normalised_density(raw, Density(), smoothing=0)
    np.testing.assert_array_equal(volume.data[..., 1], np.rint(expected * 255))


def test_probabilities_of_another_shape_are_refused(tomo: Tomogram) -> None:
    add_probs(tomo, "cut", np.full((2, 8, 9, 10), 85, np.uint8), CLASSES)
    with pytest.raises(ConfigurationError, match=r"\(8, 9, 10\), raw is \(65, 33, 40\)"):
        load_volume(VolumeSource(tomo, "cut", ("lumen",), Density()))


def test_the_budget_decides_the_level(tomo: Tomogram) -> None:
    n_voxels = int(np.prod(SHAPE))
    assert affordable_level(tomo, "net", 2, 100 * n_voxels) == 0
    assert affordable_level(tomo, "net", 2, 10 * n_voxels) == 1
    with pytest.raises(MemoryBudgetError, match=r"needs .* 10 B are allowed: .*--memory"):
        affordable_level(tomo, "net", 2, 10)


def test_floats_are_packed_in_16_bits_and_bytes_as_they_are() -> None:
    density = np.full((2, 3, 4), 0.5, np.float32)
    fine = packed(np.full((1, 2, 3, 4), 0.25, np.float32), density)
    assert fine.data.dtype == np.uint16
    np.testing.assert_allclose(fine.data[0, 0, 0] * fine.value_scale, [0.25, 0.5], atol=1e-5)
    coarse = packed(np.full((1, 2, 3, 4), 77, np.uint8), density, (30.0, 10.0, 20.0))
    np.testing.assert_array_equal(coarse.data[0, 0, 0], [77, 128])
    np.testing.assert_allclose(coarse.extent_voxels, [6, 3, 8])


def test_matter_is_near_1_and_the_window_clips() -> None:
    raw = np.random.default_rng(3).normal(size=(20, 21, 22)).astype(np.float32)
    dark = normalised_density(raw, Density(window=(10, 90)), smoothing=2)
    light = normalised_density(raw, Density(window=(10, 90), invert=False), smoothing=2)
    np.testing.assert_allclose(dark + light, 1, atol=1e-5)
    smooth = raw.astype(float)
    for _ in range(2):
        smooth = ndimage.convolve(smooth, np.full((3, 3, 3), 1 / 27), mode="nearest")
    low, high = np.percentile(smooth, (10, 90))
    np.testing.assert_allclose(light, np.clip((smooth - low) / (high - low), 0, 1), atol=5e-4)


def test_a_flat_density_is_a_number() -> None:
    flat = normalised_density(np.full((4, 5, 6), 7, np.int16), Density())
    assert np.isfinite(flat).all()
    nothing = normalised_density(np.full((4, 5, 6), np.nan, np.float32), Density())
    assert np.isfinite(nothing).all()


def test_what_is_not_finite_is_neither_matter_nor_hole() -> None:
    raw = np.random.default_rng(5).normal(100, 1, (9, 9, 9)).astype(np.float32)
    expected = normalised_density(raw, Density())
    raw[4, 4, 3:6] = np.nan, np.inf, -np.inf
    found = normalised_density(raw, Density())
    assert np.abs(found - expected).max() < 0.25
    np.testing.assert_allclose(found[:, :, 7:], expected[:, :, 7:], atol=0.05)


def _volume(data) -> Volume:
    return Volume(data, np.ones(3), np.array(data.shape[:3], float), 1.0)


def test_what_is_cut_off_casts_no_shadow() -> None:
    data = np.full((6, 8, 10, 2), 255, np.uint8)
    looks = (look("a", clip=(0.0, 1.0, 0.0, 0.0)),)
    transfer = transfer_of(looks, Density(low=0.2, high=0.8), 1 / 255, 10.0)
    found = occluder(_volume(data), transfer)
    assert (found[:, :2] == 0).all()
    assert (found[:, 2:] == 255).all()


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(*[st.integers(1, 70)] * 3).filter(lambda s: np.prod(s) < 20_000), st.integers(0, 9)
)
def test_the_occluder_is_the_mean_of_what_is_drawn(shape, seed) -> None:
    data = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
    looks = (look("a", low=0.3), look("b", low=0.1, high=0.5))
    transfer = transfer_of(looks, Density(low=0.2, high=0.8), 1 / 255)
    ramps = np.clip((data / 255 - transfer.low) * transfer.inverse_span, 0, 1)
    drawn = np.minimum(ramps[..., 0] + ramps[..., 1], 1) * ramps[..., 2]
    found = occluder(_volume(data), transfer)
    assert found.shape == tuple(-(-n // 2) for n in shape)
    for z, y, x in np.ndindex(found.shape):
        block = drawn[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert abs(found[z, y, x] / 255 - block.mean()) <= 0.5 / 255 + 1e-5


@settings(max_examples=40)
@given(st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 3), st.integers(0, 99))
def test_the_low_pass_is_the_mean_of_neighbours_axis_by_axis(shape, times, seed) -> None:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    given_values = values.copy()
    expected = values
    for axis in [0, 1, 2] * times:
        padded = np.pad(expected, [(int(a == axis),) * 2 for a in range(3)], mode="edge")
        first, middle, last = (
            np.take(padded, range(start, start + shape[axis]), axis) for start in range(3)
        )
        expected = (first + middle + last) * np.float32(1 / 3)
    np.testing.assert_array_equal(low_passed(values, times), expected)
    np.testing.assert_array_equal(values, given_values)
