"""Volumes that are streamed in bricks: the same picture to the bit, and nothing read in vain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from otzi.box import Box
from otzi.errors import MemoryBudgetError
from otzi_viewers.render.camera import pose
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.scene import Camera, Density, Light
from otzi_viewers.render.source import VolumeSource
from otzi_viewers.render.stream import StreamedStage, _pixels_of, stream_plan
from otzi_viewers.render.volume import load_volume
from pictures import add_probs, look, scene_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Otzi
    from otzi.tomogram import Tomogram

SHAPE = (70, 50, 90)
LOOKS = (
    look("membrane", color="#c79aab", extinction=0.6, low=0.1),
    look("lumen", color="#3f6fb5", extinction=0.3, low=0.2),
)
SCENE = scene_of(
    *LOOKS,
    size=(40, 30),
    light=Light(occlusion=1.2, shadow=2.4, occlusion_radius=0.1, shadow_length=0.4),
    density=Density(low=0.3, high=0.9, smoothing=2),
    spp=2,
)
CAMERAS = (
    Camera(),
    Camera(azimuth=200, elevation=-40, roll=15),
    Camera(distance=0.2),
    Camera(azimuth=60, elevation=50, projection="orthographic"),
    Camera(azimuth=0, elevation=0),
    Camera(target=(0.2, 0.1, -0.3), distance=0.4, elevation=-80),
)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    random = np.random.default_rng(6)
    smooth = ndimage.gaussian_filter(random.normal(size=(3, *SHAPE)), (0, 4, 4, 4))
    smooth /= np.abs(smooth).max(axis=(1, 2, 3), keepdims=True)
    made = add_tomogram((smooth[0] * 3000 + random.normal(0, 300, SHAPE)).astype(np.int16))
    drawn = np.clip(smooth[1:] * 160, 0, 127).astype(np.uint8)
    drawn[:, :, :, 60:] = 0
    add_probs(made, "net", drawn, ("background", "membrane", "lumen"))
    return made


@pytest.fixture
def source(tomo: Tomogram) -> VolumeSource:
    return VolumeSource(tomo, "net", ("membrane", "lumen"), SCENE.density)


def test_a_box_is_the_same_whatever_boxes_are_read(source: VolumeSource) -> None:
    whole = load_volume(source).data
    for box in (Box((0, 0, 0), (7, 50, 3)), Box((33, 20, 41), (70, 50, 90))):
        np.testing.assert_array_equal(source.read(box), whole[box.slices])


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("brick_voxels", [16, 24, 41, 64])
def test_bricks_change_no_bit(source: VolumeSource, camera: Camera, brick_voxels: int) -> None:
    scene = replace(SCENE, camera=camera)
    whole = Stage(load_volume(source)).render(scene)
    assert whole[0].any()
    streamed = StreamedStage(source, brick_voxels).render(scene)
    np.testing.assert_array_equal(whole[0], streamed[0])
    np.testing.assert_array_equal(whole[1], streamed[1])


def test_baked_light_is_the_same_too(source: VolumeSource) -> None:
    scene = replace(SCENE, quality=replace(SCENE.quality, lighting="baked"))
    whole, _ = Stage(load_volume(source)).render(scene)
    streamed, _ = StreamedStage(source, 32).render(scene)
    np.testing.assert_array_equal(whole, streamed)


def test_what_cannot_be_seen_is_not_read(source: VolumeSource) -> None:
    empty = StreamedStage(source, 16)
    empty.render(SCENE)
    all_bricks = 5 * 4 * 6
    with_something = 5 * 4 * 4
    assert 0 < empty.n_bricks_read <= with_something < all_bricks
    opaque = StreamedStage(source, 16)
    dense = tuple(replace(one, extinction=1e4, low=0.0) for one in LOOKS)
    opaque.render(replace(SCENE, classes=dense, density=Density(low=-1, high=0, smoothing=0)))
    assert opaque.n_bricks_read < empty.n_bricks_read


@pytest.mark.parametrize("camera", CAMERAS)
def test_every_ray_that_meets_a_brick_is_among_its_pixels(
    source: VolumeSource, camera: Camera
) -> None:
    view = pose(camera, (40, 30), source.extent_voxels)
    own = Box((16, 16, 32), (32, 32, 48))
    pixels = np.arange(40 * 30)
    low = np.array(own.start) * source.spacing_voxels - source.extent_voxels / 2
    high = np.array(own.stop) * source.spacing_voxels - source.extent_voxels / 2
    for offset in ((0.0, 0.0), (0.5, 0.5), (0.99, 0.99)):
        origins, directions = view.rays(pixels, offset)
        with np.errstate(divide="ignore", invalid="ignore"):
            faces = np.stack([(low - origins) / directions, (high - origins) / directions])
        near = np.maximum(np.nanmax(np.nanmin(faces, axis=0), axis=1), 0)
        meets = near < np.nanmin(np.nanmax(faces, axis=0), axis=1)
        assert set(pixels[meets]) <= set(_pixels_of(own, view, source))


def test_the_plan_takes_the_largest_bricks_that_fit(source: VolumeSource) -> None:
    sides = [stream_plan(source, SCENE, n).brick_voxels for n in (10**9, 4 * 10**7, 2 * 10**7)]
    assert sides == sorted(sides, reverse=True)
    with pytest.raises(MemoryBudgetError, match="cannot be streamed in less than"):
        stream_plan(source, SCENE, 10**5)


def test_a_level_that_does_not_fit_is_streamed_and_said_so(
    tomo: Tomogram, otzi: Otzi, tmp_path
) -> None:
    scene = tmp_path / "scene.toml"
    looks = "".join(f'[[classes]]\nname = "{one.name}"\nlow = {one.low}\n' for one in LOOKS)
    scene.write_text(looks)
    words = ("render", tomo.collection.path, "ts_001", "--scene", scene, "--size", "30x20")
    whole = otzi(*words, "-o", tmp_path / "whole.png")
    assert whole.code == 0, whole.err
    memory = ("--level", "0", "--memory", "7500000B")
    streamed = otzi(*words, "-o", tmp_path / "streamed.png", *memory)
    assert streamed.code == 0, streamed.err
    assert "streamed in bricks" in streamed.err
    assert "streamed" not in whole.err
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "streamed.png").read_bytes()
    scene.write_text(looks + '[quality]\nlook = "mip"\n')
    refused = otzi(*words, "-o", tmp_path / "mip.png", *memory)
    assert refused.code == 2
    assert "the look mip is not streamed" in refused.err
