"""What is changed in crops: the same for the same crop, both arrays alike, and only what may be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from labelled import one_hot, shells
from otzi_pipelines.train.augment import Change, blurred, rotated
from otzi_pipelines.train.settings import AugmentationSettings, TrainSettings

PLAIN = TrainSettings(turns=False)
ALL = AugmentationSettings(gain=0.3, offset=0.5, noise=0.7, blur_voxels=1.5, rotation_degrees=12)


def crop(side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    density, labels = shells((side, side, side))
    return torch.from_numpy(density / np.float32(50)).float(), torch.from_numpy(one_hot(labels))


def changed(settings: TrainSettings, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    return Change.draw(settings, index)(*crop())


def test_nothing_is_changed_where_all_is_off() -> None:
    for i in range(5):
        for old, new in zip(crop(), changed(PLAIN, i), strict=True):
            assert torch.equal(old, new)


def test_the_same_crop_is_changed_alike() -> None:
    settings = TrainSettings(augmentation=ALL)
    for i in range(3):
        for first, second in zip(changed(settings, i), changed(settings, i), strict=True):
            assert torch.equal(first, second)
    drawn = [Change.draw(settings, i) for i in range(20)]
    assert len(set(drawn)) == 20
    assert Change.draw(replace(settings, seed=1), 0) != drawn[0]


@pytest.mark.parametrize("off", ["gain", "offset", "noise", "blur_voxels", "rotation_degrees"])
def test_what_is_off_changes_nothing_of_the_others(off: str) -> None:
    whole = TrainSettings(augmentation=ALL)
    part = TrainSettings(augmentation=replace(ALL, **{off: 0}))
    unchanged: Any = {"gain": 1.0}.get(off, 0.0)
    for i in range(5):
        assert replace(Change.draw(whole, i), **{off: unchanged}) == Change.draw(part, i)


def test_numbers_are_spread_as_the_settings_say() -> None:
    drawn = [Change.draw(TrainSettings(augmentation=ALL), i) for i in range(1500)]
    values = {key: np.array([getattr(c, key) for c in drawn]) for key in ("gain", "offset")}
    assert np.log(values["gain"]).std() == pytest.approx(0.3, rel=0.1)
    assert values["offset"].std() == pytest.approx(0.5, rel=0.1)
    for key, limit in (("noise", 0.7), ("blur_voxels", 1.5)):
        of_all = [getattr(c, key) for c in drawn]
        assert 0 <= min(of_all) < 0.05 * limit
        assert 0.95 * limit < max(of_all) <= limit
    degrees = np.array([c.rotation_degrees for c in drawn])
    assert -12 <= degrees.min() < -11
    assert 11 < degrees.max() <= 12


def test_all_flips_and_quarters_are_drawn_and_both_arrays_turn_together() -> None:
    density, target = crop()
    seen = set()
    for i in range(60):
        change = Change.draw(TrainSettings(), i)
        turned, labels = change(density, target)
        expected = [
            np.rot90(np.flip(values.numpy(), change.flips), change.quarters, axes=(-2, -1))
            for values in (density, target)
        ]
        np.testing.assert_array_equal(turned, expected[0])
        np.testing.assert_array_equal(labels, expected[1])
        seen.add((change.flips, change.quarters))
    flips = {tuple(a for a in (-3, -2, -1) if bits >> -a & 1) for bits in range(0, 16, 2)}
    assert {f for f, _ in seen} == flips
    assert {q for _, q in seen} == {0, 1, 2, 3}


@given(st.floats(0.1, 3), st.floats(-2, 2))
def test_contrast_is_a_line(gain: float, offset: float) -> None:
    density, target = crop()
    found, labels = Change(gain=gain, offset=offset)(density, target)
    np.testing.assert_allclose(found, gain * density + offset, rtol=1e-5, atol=1e-5)
    assert torch.equal(labels, target)


def test_noise_is_white_of_its_strength() -> None:
    density, target = crop(32)
    found, labels = Change(noise=0.5, noise_seed=3)(density, target)
    noise = (found - density).numpy()
    assert noise.std() == pytest.approx(0.5, rel=0.02)
    assert abs(noise.mean()) < 0.01
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.02
    assert torch.equal(labels, target)


@pytest.mark.parametrize("sd", [0.3, 0.8, 2.0])
def test_a_blur_is_that_of_scipy(sd: float) -> None:
    density, _ = crop()
    expected = ndimage.gaussian_filter(
        density.numpy().astype(float), sd, mode="mirror", radius=int(np.ceil(3 * sd))
    )
    np.testing.assert_allclose(blurred(density, sd), expected, atol=1e-5)


def test_a_blur_wider_than_the_crop_is_cut() -> None:
    density = torch.ones(2, 16, 16)
    np.testing.assert_allclose(blurred(density, 8.0), density, atol=1e-6)


@pytest.mark.parametrize("degrees", [-30.0, 7.0, 45.0])
def test_a_rotation_is_that_of_scipy_plane_by_plane(degrees: float) -> None:
    density, _ = crop()
    smooth = blurred(density, 1.0)
    found = rotated(smooth[None], degrees, "bilinear", "zeros")[0].numpy()
    expected = ndimage.rotate(smooth.numpy(), degrees, axes=(1, 2), reshape=False, order=1)
    middle = np.s_[:, 4:12, 4:12]
    np.testing.assert_allclose(found[middle], expected[middle], atol=2e-4)


def test_a_quarter_rotation_is_a_quarter_turn() -> None:
    density, target = crop()
    found = rotated(target, 90, "nearest", "zeros")
    np.testing.assert_array_equal(found, torch.rot90(target, 1, (-2, -1)))
    found = rotated(density[None], 180, "bilinear", "reflection")[0]
    np.testing.assert_allclose(found, torch.rot90(density, 2, (-2, -1)), atol=1e-4)


def test_planes_stay_planes_and_nothing_is_known_beyond() -> None:
    """The beam axis stays: every plane of z comes from that plane alone."""
    density, target = crop()
    change = Change(rotation_degrees=20.0)
    turned, labels = change(density, target)
    other = density.clone()
    other[5] = 0
    again, _ = change(other, target)
    np.testing.assert_array_equal(np.delete(turned.numpy(), 5, 0), np.delete(again.numpy(), 5, 0))
    known = labels.sum(0)
    assert set(known.unique().tolist()) == {0.0, 1.0}
    corners = known[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert not corners.any()
    assert known[:, 4:12, 4:12].all()


def test_a_crop_that_is_no_cube_is_rotated_in_voxels() -> None:
    values = torch.zeros(1, 1, 9, 17)
    values[0, 0, 4, 12] = 1
    found = rotated(values, 90, "nearest", "zeros")
    assert [tuple(place) for place in found.nonzero().tolist()] == [(0, 0, 0, 8)]


@pytest.mark.parametrize("is_soft", [False, True])
def test_targets_stay_what_they_are(is_soft: bool) -> None:
    density, target = crop()
    if is_soft:
        target = target * 0.7 + 0.1
    _, found = Change(rotation_degrees=11.0, quarters=1, flips=(-1,))(density, target)
    assert set(np.unique(found.numpy())) <= set(np.unique(target.numpy())) | {0.0}
