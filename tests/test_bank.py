"""The feature bank: ilastik's definition, whatever the block, whatever the voxels are stored as."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi.box import Box, tile
from otzi.errors import UsageError
from otzi.pseudo.bank import FEATURES, SCALES, FeatureBank
from references import ilastik_features

TOLERANCES = dict.fromkeys(FEATURES, 1e-4) | {
    "difference_of_gaussians": 2e-4,
    "structure_tensor_eigenvalues": 1e-3,
    "hessian_of_gaussian_eigenvalues": 1e-3,
}
BANK = FeatureBank()
SMALL_BANK = FeatureBank(scales=(0.3, 0.7, 1.0, 1.6))


def volume_of(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Give noise with a bright ball: flat, curved and edged in one volume."""
    rng = np.random.default_rng(seed)
    radii = np.sqrt(sum((g - n / 3) ** 2 for g, n in zip(np.indices(shape), shape, strict=True)))
    return (rng.normal(size=shape) + 4 * (radii < min(shape) / 3)).astype(np.float32)


def assert_as_defined(bank: FeatureBank, volume: np.ndarray) -> None:
    channels = dict(zip(bank.names, bank.compute(volume), strict=True))
    for scale in bank.scales:
        expected = ilastik_features(volume, scale, bank.structure_tensor)
        for feature in set(expected) & set(bank.features):
            largest = max(abs(channel).max() for channel in expected[feature])
            for i, channel in enumerate(expected[feature]):
                name = f"{feature}_{scale:g}" + f"_{i}" * (len(expected[feature]) > 1)
                worst = abs(channels.pop(name) - channel).max() / largest
                assert worst < TOLERANCES[feature], name
    assert not channels


@pytest.mark.parametrize("structure_tensor", ["shipped", "vigra"])
def test_every_channel_is_as_defined_up_to_all_faces(structure_tensor: str) -> None:
    assert_as_defined(FeatureBank(structure_tensor=structure_tensor), volume_of((37, 41, 39)))


@pytest.mark.parametrize("shape", [(5, 6, 131), (6, 67, 5), (21, 5, 5)])
def test_more_than_a_tile_or_hardly_anything(shape: tuple[int, int, int]) -> None:
    assert_as_defined(FeatureBank(scales=(0.3, 0.7, 1.0)), volume_of(shape))


def test_names_go_by_feature_then_scale_then_eigenvalue() -> None:
    assert len(BANK.names) == len(set(BANK.names)) == 61
    assert BANK.names[:8] == (
        *(f"gaussian_smoothing_{s}" for s in ("0.3", "0.7", "1", "1.6", "3.5", "5", "10")),
        "laplacian_of_gaussian_0.7",
    )
    assert BANK.names[-2:] == (
        "hessian_of_gaussian_eigenvalues_10_1",
        "hessian_of_gaussian_eigenvalues_10_2",
    )
    n_channels = [sum(name.startswith(feature) for name in BANK.names) for feature in FEATURES]
    assert n_channels == [7, 6, 6, 6, 18, 18]


@pytest.mark.parametrize(
    ("scale", "halo"), list(zip(SCALES, (2, 4, 7, 7, 15, 20, 38), strict=True))
)
def test_the_halo_of_each_scale(scale: float, halo: int) -> None:
    bank = FeatureBank(scales=(scale,))
    assert bank.halo_voxels == halo
    if scale > 0.3:
        without = FeatureBank(scales=(scale,), features=(FEATURES[0], FEATURES[5]))
        assert without.halo_voxels == halo - 1


def test_the_halo_of_all() -> None:
    assert BANK.halo_voxels == 38
    assert FeatureBank(scales=SCALES[:-1]).halo_voxels == 20


@pytest.mark.parametrize("scale", [0.3, 0.7, 1.0, 1.6, 3.5])
def test_a_voxel_is_seen_as_far_as_the_halo_and_no_further(scale: float) -> None:
    bank = FeatureBank(scales=(scale,))
    n = 2 * bank.halo_voxels + 5
    volume = np.random.default_rng(0).normal(size=(n, n, n)).astype(np.float32)
    other = volume.copy()
    other[n // 2, n // 2, n // 2] = np.nan
    differs = ~np.isfinite(bank.compute(other)).all(axis=0)
    for axis in range(3):
        seen = np.flatnonzero(differs.any(axis=tuple({0, 1, 2} - {axis})))
        assert (seen.min(), seen.max()) == (2, n - 3)
    kept = bank.compute(other)[:, ~differs]
    np.testing.assert_array_equal(kept, bank.compute(volume)[:, ~differs])


@pytest.mark.parametrize("block", [(37, 20, 39), (13, 41, 17), (20, 21, 22)])
@pytest.mark.parametrize(
    "bank",
    [BANK, FeatureBank(structure_tensor="vigra"), FeatureBank(features=FEATURES[:4])],
    ids=["all", "vigra", "one halo voxel less"],
)
def test_blocks_are_the_whole(block: tuple[int, int, int], bank: FeatureBank) -> None:
    volume = volume_of((37, 41, 39))
    whole = bank.compute(volume)
    for inner in tile(volume.shape, block):
        held = inner.grow(bank.halo_voxels).clip(volume.shape)
        for slab, channels in bank.slabs(volume[held.slices], held, inner, planes=7):
            expected = whole[(slice(None), *slab.slices)]
            np.testing.assert_allclose(channels, expected, atol=1e-5, rtol=0)


LARGE = volume_of((29, 45, 31), seed=1)


@functools.cache
def large_channels() -> np.ndarray:
    return SMALL_BANK.compute(LARGE)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    ends = [sorted(draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in LARGE.shape]
    return Box(*zip(*ends, strict=True))


@given(boxes(), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_any_box_in_slabs_of_any_thickness_is_cut_from_the_whole(inner: Box, planes: int) -> None:
    held = inner.grow(SMALL_BANK.halo_voxels).clip(LARGE.shape)
    parts = [
        channels.copy() for _, channels in SMALL_BANK.slabs(LARGE[held.slices], held, inner, planes)
    ]
    assert all(part.shape[1] <= planes for part in parts)
    together = np.concatenate(parts, axis=1)
    np.testing.assert_array_equal(together, large_channels()[(slice(None), *inner.slices)])


@given(st.permutations(range(3)), st.sets(st.integers(0, 2)), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_turning_the_volume_turns_the_channels(
    order: list[int], flipped: set[int], seed: int
) -> None:
    def turned(array: np.ndarray) -> np.ndarray:
        first = array.ndim - 3
        axes = [*range(first), *(first + axis for axis in order)]
        return np.flip(array.transpose(axes), [first + axis for axis in flipped])

    volume = volume_of((9, 10, 11), seed)
    found, expected = SMALL_BANK.compute(turned(volume)), turned(SMALL_BANK.compute(volume))
    np.testing.assert_allclose(found, expected, atol=1e-3 * abs(expected).max())


@pytest.mark.parametrize(
    "bank",
    [
        FeatureBank(features=(FEATURES[0],)),
        FeatureBank(features=(FEATURES[3],), scales=(0.3, 5.0)),
        FeatureBank(features=(FEATURES[5], FEATURES[1]), scales=(1.6, 0.7)),
        FeatureBank(features=(FEATURES[2], FEATURES[4]), scales=(10.0, 1.0)),
    ],
)
def test_a_choice_has_the_same_channels(bank: FeatureBank) -> None:
    volume = volume_of((36, 37, 38))
    everything = dict(zip(BANK.names, BANK.compute(volume), strict=True))
    channels = bank.compute(volume)
    assert len(channels) == len(bank.names) < 61
    for name, channel in zip(bank.names, channels, strict=True):
        np.testing.assert_array_equal(channel, everything[name])


def test_a_bank_is_what_it_says() -> None:
    bank = FeatureBank(scales=[5, 0.7], features=FEATURES[4:2:-1])
    assert bank == FeatureBank(scales=(0.7, 5.0), features=FEATURES[3:5])
    assert hash(bank) == hash(FeatureBank(scales=(0.7, 5.0), features=FEATURES[3:5]))
    assert len({BANK, FeatureBank(), FeatureBank(structure_tensor="vigra")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        BANK.scales = (1.0,)


@pytest.mark.parametrize("bank", [BANK, SMALL_BANK, FeatureBank(structure_tensor="vigra")])
def test_a_bank_is_the_same_after_json(bank: FeatureBank) -> None:
    assert FeatureBank.from_json(json.loads(json.dumps(bank.to_json()))) == bank


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"scales": (2.0,)}, "scales 2: choose from"),
        ({"scales": ()}, "scales none"),
        ({"features": ("sobel",)}, "features sobel: choose from gaussian_smoothing"),
        ({"features": ()}, "features none"),
        ({"structure_tensor": "fast"}, "'fast': shipped or vigra"),
        ({"scales": (0.3,), "features": FEATURES[1:]}, "smoothing only"),
    ],
)
def test_what_cannot_be_chosen(choice: dict, names: str) -> None:
    with pytest.raises(UsageError, match=names):
        FeatureBank(**choice)


@pytest.mark.parametrize(("scale", "needed"), [(0.3, 3), (0.7, 4), (1.6, 7), (5.0, 19), (10.0, 36)])
def test_a_volume_too_thin_is_refused(scale: float, needed: int) -> None:
    bank = FeatureBank(scales=(scale,))
    for shape in set(itertools.permutations((needed, 50, 60))):
        bank.check(shape)
    with pytest.raises(UsageError, match=f"scale {scale:g} needs {needed} .* 50 × {needed - 1} × "):
        bank.check((50, needed - 1, 60))
    with pytest.raises(UsageError, match=f"needs {needed} "):
        bank.compute(np.zeros((needed - 1, 50, 60), np.float32))


def test_the_smallest_scale_that_does_not_fit_is_named() -> None:
    with pytest.raises(UsageError, match=r"leave out the scales from 3\.5"):
        BANK.check((13, 100, 100))
    FeatureBank(scales=(0.3, 0.7, 1.0, 1.6)).check((13, 100, 100))


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", ">i2", "u2", "i4", "f2", "f8", ">f4"])
def test_any_real_dtype(dtype: str) -> None:
    volume = np.random.default_rng(0).integers(0, 100, (8, 9, 10)).astype(dtype)
    expected = SMALL_BANK.compute(volume.astype(np.float32))
    np.testing.assert_array_equal(SMALL_BANK.compute(volume), expected)


def test_any_layout_and_the_volume_is_left_as_it_is() -> None:
    volume = volume_of((8, 9, 10))
    expected = SMALL_BANK.compute(volume)
    frozen = volume.copy()
    frozen.flags.writeable = False
    spread = np.zeros((8, 9, 20), np.float32)
    spread[..., ::2] = volume
    for same in (np.asfortranarray(volume), frozen, spread[..., ::2]):
        np.testing.assert_array_equal(SMALL_BANK.compute(same), expected)
        np.testing.assert_array_equal(same, volume)


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4, 1e-6])
def test_a_constant_volume_has_no_feature_but_its_value(value: float) -> None:
    channels = dict(
        zip(BANK.names, BANK.compute(np.full((36, 37, 38), value, np.float32)), strict=True)
    )
    for name, channel in channels.items():
        expected = value if name.startswith("gaussian_smoothing") else 0
        np.testing.assert_allclose(channel, expected, atol=1e-5 * abs(value), err_msg=name)
