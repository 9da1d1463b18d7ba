"""The kernel: laws that a picture of known things must keep, the oracle, and the same bits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.errors import UsageError
from otzi_viewers.render.camera import pose
from otzi_viewers.render.cpu import medium_of, render
from otzi_viewers.render.lighting import lamp_of
from otzi_viewers.render.march import Marcher
from otzi_viewers.render.medium import Lamp, Medium, Rules
from otzi_viewers.render.reference import reference_march
from otzi_viewers.render.sampling import ball_points, subpixel_offset
from otzi_viewers.render.scene import Camera, Density, Light
from otzi_viewers.render.transfer import linear_color, transfer_of
from pictures import blobs, look, scene_of, uniform_volume

if TYPE_CHECKING:
    from otzi_viewers.render.volume import Volume

RAMP = Density(low=0.2, high=0.9)
TWO = (
    look("a", color="#c79aab", extinction=0.6, low=0.1),
    look("b", color="#3f6fb5", extinction=0.9, low=0.05),
)
RULES = Rules(step=0.5, gate=0.0, seed=1)
FULL_LIGHT = Light(occlusion=1.2, shadow=2.4, occlusion_radius=0.1, shadow_length=0.4)


@pytest.mark.parametrize("step", [0.25, 0.5, 0.7, 3.0])
def test_a_slab_is_as_opaque_as_beer_and_lambert_say(step: float) -> None:
    rgba, depth = render(uniform_volume(1.0), scene_of(look(extinction=0.2), step=step))
    np.testing.assert_allclose(rgba[..., 3], 1 - np.exp(-0.2 * 10), atol=1e-5)
    view = pose(scene_of().camera, (16, 12), np.array([10.0, 12.0, 14.0]))
    to_box = view.eye[0] - 5
    np.testing.assert_allclose(depth, to_box + np.log(2) / 0.2, rtol=1e-6)


def test_a_ray_ends_where_less_than_a_hundredth_shines_through() -> None:
    rgba, _ = render(uniform_volume(1.0), scene_of(look(extinction=2.0), step=0.5))
    np.testing.assert_allclose(rgba[..., 3], 1 - np.exp(-2.0 * 2.5), atol=1e-5)


def test_classes_in_one_place_share_the_colour_by_their_extinction() -> None:
    one, other = look("a", color="#c08040"), look("b", extinction=0.15, color="#2040e0")
    rgba, _ = render(uniform_volume(0.2, 0.4), scene_of(one, other))
    swapped, _ = render(uniform_volume(0.4, 0.2), scene_of(other, one))
    sigma = np.array([0.05 * 0.2, 0.15 * 0.4])
    alpha = 1 - np.exp(-10 * sigma.sum())
    colors = np.array([linear_color("#c08040"), linear_color("#2040e0")])
    expected = np.append(alpha * (sigma @ colors) / sigma.sum(), alpha)
    np.testing.assert_allclose(rgba, np.broadcast_to(expected, rgba.shape), atol=1e-5)
    np.testing.assert_allclose(rgba, swapped, atol=1e-6)


@pytest.mark.parametrize(("value", "opaque"), [(0.3, 0.0), (0.65, 0.5), (1.0, 1.0)])
def test_a_ramp_is_nothing_at_low_and_all_at_high(value: float, opaque: float) -> None:
    scene = scene_of(look(low=0.3, high=1.0))
    rgba, _ = render(uniform_volume(value), scene)
    np.testing.assert_allclose(rgba[..., 3], 1 - np.exp(-0.05 * 10 * opaque), atol=1e-5)


def test_the_density_multiplies_the_opacity() -> None:
    scene = scene_of(look(extinction=0.1), density=Density(low=0.5, high=1.5))
    rgba, _ = render(uniform_volume(1.0), scene)
    np.testing.assert_allclose(rgba[..., 3], 1 - np.exp(-0.1 * 10 * 0.5), atol=1e-5)


@pytest.mark.parametrize("skip_empty", [True, False])
def test_an_empty_volume_gives_nothing(skip_empty: bool) -> None:
    rgba, depth = render(
        uniform_volume(0.0), scene_of(light=FULL_LIGHT, camera=Camera()), skip_empty=skip_empty
    )
    assert not rgba.any()
    assert np.isinf(depth).all()


@pytest.mark.parametrize("shape", [(1, 9, 8), (9, 1, 8), (3, 40, 5)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.5)])
def test_thin_and_anisotropic_boxes_are_as_thick_as_they_are(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    volume = uniform_volume(1.0, shape=shape, spacing=spacing)
    scene = scene_of(look(extinction=0.1), light=FULL_LIGHT)
    scene = replace(scene, camera=replace(scene.camera, distance=1e-3))
    rgba, _ = render(volume, scene)
    np.testing.assert_allclose(rgba[..., 3], 1 - np.exp(-0.1 * shape[0] * spacing[0]), atol=1e-5)


def test_an_eye_within_the_box_sees_what_lies_before_it() -> None:
    volume = uniform_volume(1.0)
    camera = Camera(azimuth=30, elevation=20, distance=0.01)
    scene = scene_of(look(extinction=0.1), camera=camera)
    rgba, _ = render(volume, scene)
    view = pose(camera, (16, 12), volume.extent_voxels)
    origins, directions = view.rays(np.arange(16 * 12), (0.5, 0.5))
    assert (np.abs(origins) < volume.extent_voxels / 2).all()
    lengths = ((np.sign(directions) * volume.extent_voxels / 2 - origins) / directions).min(axis=1)
    np.testing.assert_allclose(rgba[..., 3].ravel(), 1 - np.exp(-0.1 * lengths), atol=1e-5)


def _march(volume: Volume, origins, directions):
    """March rays given by hand."""
    scene = scene_of(look(extinction=0.1))
    medium = medium_of(volume, transfer_of(scene.classes, scene.density, volume.value_scale))
    view = pose(scene.camera, scene.output.size, volume.extent_voxels)
    lamp = lamp_of(scene.light, scene.quality, volume, view)
    rays = np.array(origins, float), np.array(directions, float), np.arange(len(origins))
    return Marcher(medium, lamp, Rules(0.5, 0.0, 1)).march(*rays, 0)


def test_rays_along_an_axis_meet_the_box_or_miss_it() -> None:
    origins = [[-50, 0, 0], [0, -50, 0], [0, 0, 50], [-50, 6.5, 0], [-50, 0, 7], [50, 0, 0]]
    directions = [[1, 0, 0], [0, 1, 0], [-0.0, 0, -1], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
    lengths = np.array([10, 12, 14, 0, 0, 0])
    rays = _march(uniform_volume(1.0), origins, directions)
    np.testing.assert_allclose(1 - rays["transmittance"], 1 - np.exp(-0.1 * lengths), atol=1e-5)


def _half_space(upper: bool) -> tuple[Medium, Lamp]:
    """Give a cube of 64 voxels filled on one side of the plane y = 0, and a point-like lamp."""
    volume = uniform_volume(1.0, shape=(64, 64, 64))
    filled = np.arange(64) >= 32 if upper else np.arange(64) < 32
    volume.data[..., 0] *= filled[:, None]
    scene = scene_of(look(), ao=1024, shadow=256)
    medium = medium_of(volume, transfer_of(scene.classes, scene.density, volume.value_scale))
    lamp = Lamp(
        position=np.array([0.0, 1e6, 0.0]),
        radius=0.0,
        shadow_start=0.0,
        shadow_length=20.0,
        shadow_strength=0.9,
        shadow_tint=np.zeros(3),
        n_shadow=256,
        ao_radius=10.0,
        ao_centre=np.array([0.0, 5.5, 0.0]),
        ao_strength=1.0,
        ao_tint=np.zeros(3),
        n_ao=1024,
        ball=ball_points(1024),
    )
    return medium, lamp


@pytest.mark.parametrize("below", [2.0, 8.0, 15.0, 25.0])
def test_a_half_space_casts_the_shadow_of_its_weighted_share(below: float) -> None:
    medium, lamp = _half_space(upper=True)
    seen = Marcher(medium, lamp, RULES).shadow(np.array([0.0, -below, 0.0]), 1234)
    # ∫ (1 − f)² over the part of the cone's length beyond the plane, of that over all.
    expected = 0.9 * max(1 - below / 20, 0) ** 3
    assert seen == pytest.approx(expected, abs=0.01)


def test_nothing_beyond_the_lamp_casts_a_shadow() -> None:
    medium, lamp = _half_space(upper=True)
    near = lamp._replace(position=np.array([0.0, -3.0, 0.0]))
    assert Marcher(medium, near, RULES).shadow(np.array([0.0, -8.0, 0.0]), 1234) == 0.0


def test_a_floor_occludes_by_the_cap_that_it_fills() -> None:
    medium, lamp = _half_space(upper=False)
    seen = Marcher(medium, lamp, RULES).ambient_occlusion(np.zeros(3), 1234)
    lift = 0.55
    cap = (1 - lift) ** 2 * (2 + lift) / 4
    assert seen == pytest.approx(cap, abs=0.01)
    strong = lamp._replace(ao_strength=100.0)
    assert Marcher(medium, strong, RULES).ambient_occlusion(np.zeros(3), 1234) == 1.0


@pytest.mark.parametrize("gate", [0.0, 0.031, 0.2])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.3)])
@pytest.mark.parametrize("attach", ["scene", "camera"])
def test_every_pixel_is_that_of_the_obvious_form(gate: float, spacing, attach: str) -> None:
    volume = blobs((13, 17, 20), spacing=spacing)
    camera = Camera(azimuth=-33, elevation=21, roll=10, distance=1.4)
    light = replace(FULL_LIGHT, attach=attach)
    scene = scene_of(*TWO, light=light, density=RAMP, camera=camera, gate=gate, spp=2)
    rgba, depth = render(volume, scene)
    transfer = transfer_of(scene.classes, scene.density, volume.value_scale)
    view = pose(camera, scene.output.size, volume.extent_voxels)
    medium = medium_of(volume, transfer)
    lamp = lamp_of(light, scene.quality, volume, view)
    rules = Rules(step=scene.quality.step, gate=gate, seed=scene.quality.seed)
    pixels = np.arange(16 * 12)
    expected = [
        reference_march(medium, lamp, rules, *view.rays(pixels, subpixel_offset(n)), pixels, n)
        for n in (0, 1)
    ]
    found = rgba.reshape(-1, 4)
    assert found[:, 3].max() > 0.5
    colors = (expected[0]["color"] + expected[1]["color"]) / 2
    opacities = 1 - (expected[0]["transmittance"] + expected[1]["transmittance"]) / 2
    np.testing.assert_allclose(found[:, :3], colors, atol=2e-6)
    np.testing.assert_allclose(found[:, 3], opacities, atol=2e-6)
    np.testing.assert_allclose(depth.ravel(), expected[0]["depth"], rtol=1e-5)


def test_a_volume_needs_a_channel_for_every_class() -> None:
    with pytest.raises(UsageError, match="2 channels, 2 classes"):
        render(uniform_volume(1.0), scene_of(*TWO))


LIT = scene_of(*TWO, size=(48, 36), light=FULL_LIGHT, density=RAMP, camera=Camera(), spp=2)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("camera", [Camera(), Camera(distance=0.2), Camera(roll=90, elevation=90)])
def test_skipping_empty_space_changes_no_bit(share: float, camera: Camera) -> None:
    volume = blobs((30, 41, 50), share=share, spacing=(1.5, 1.0, 1.0))
    scene = replace(LIT, camera=camera)
    fast, plain = (render(volume, scene, skip_empty=skip) for skip in (True, False))
    assert plain[0].any()
    np.testing.assert_array_equal(fast[0], plain[0])
    np.testing.assert_array_equal(fast[1], plain[1])


def test_threads_and_tiles_change_no_bit() -> None:
    volume = blobs()
    whole, depth = render(volume, LIT, tile_pixels=64, n_threads=1)
    assert whole.any()
    for tile_pixels, n_threads in ((7, 1), (16, 3), (1, 2)):
        other, other_depth = render(volume, LIT, tile_pixels=tile_pixels, n_threads=n_threads)
        np.testing.assert_array_equal(whole, other)
        np.testing.assert_array_equal(depth, other_depth)


def test_16_bits_show_what_8_bits_show() -> None:
    volume = blobs()
    fine = replace(volume, data=volume.data.astype(np.uint16) * 257)
    rgba, depth = render(volume, LIT)
    same, same_depth = render(fine, LIT)
    np.testing.assert_allclose(rgba, same, atol=1e-5)
    np.testing.assert_allclose(depth, same_depth, rtol=1e-5)


def test_a_finer_step_hardly_changes_the_picture() -> None:
    volume = blobs()
    means = []
    for step in (0.5, 0.25):
        quality = replace(LIT.quality, step=step, spp=8, ao=16, shadow=16)
        means.append(render(volume, replace(LIT, quality=quality))[0].mean(axis=(0, 1)))
    np.testing.assert_allclose(means[0], means[1], rtol=5e-3)


def test_other_seeds_give_other_noise_and_the_same_picture() -> None:
    volume = blobs()
    one, other = (
        render(volume, replace(LIT, quality=replace(LIT.quality, seed=seed)))[0] for seed in (1, 2)
    )
    assert (one != other).any()
    np.testing.assert_allclose(one.mean(axis=(0, 1)), other.mean(axis=(0, 1)), rtol=0.02)
