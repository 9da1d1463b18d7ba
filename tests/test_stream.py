"""Volumes that are streamed in bricks: the same picture to the bit, and nothing read in vain."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from otzi.box import Box
from otzi.errors import MemoryBudgetError
from otzi.events import Noted
from otzi.store.reader import LevelArray
from otzi_viewers.render.bricks import brick_maxima
from otzi_viewers.render.camera import pose
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.movie import frame_scene
from otzi_viewers.render.scene import Camera, Density, Light, Movie
from otzi_viewers.render.source import VolumeSource
from otzi_viewers.render.stream import StreamedStage
from otzi_viewers.render.stream_plan import stream_plan
from otzi_viewers.render.visibility import rectangle_of
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


class Reads:
    """The boxes of level 0 that are asked of the store, by product."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boxes: dict[str, list[tuple[slice, ...]]] = defaultdict(list)
        read = LevelArray.__getitem__

        def noted(array: LevelArray, region: Any) -> Any:
            self.boxes[array.path.parents[1].name].append(region[-3:])
            return read(array, region)

        monkeypatch.setattr(LevelArray, "__getitem__", noted)

    def n_voxels(self, product: str) -> int:
        return sum(
            int(np.prod([part.stop - part.start for part in box])) for box in self.boxes[product]
        )


def fresh(source: VolumeSource, brick_voxels: int, **more: Any) -> StreamedStage:
    """Give a stage whose source knows only what is kept on the disk."""
    return StreamedStage(replace(source), brick_voxels, **more)


def test_other_ramps_and_colours_read_nothing_to_know_where_to_look(
    source: VolumeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = replace(source).brick_maxima()
    np.testing.assert_array_equal(expected, brick_maxima(load_volume(source).data))
    reads = Reads(monkeypatch)
    ramps = replace(SCENE.density, low=0.5, high=0.7)
    other = replace(source, density=ramps)
    np.testing.assert_array_equal(other.brick_maxima(), expected)
    assert not reads.boxes
    for changed in (replace(ramps, smoothing=1), replace(ramps, window=(5.0, 90.0))):
        assert (replace(source, density=changed).brick_maxima() != expected).any()
    assert reads.boxes


def test_empty_space_is_never_read_again(
    source: VolumeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(source, 32).render(SCENE)
    reads = Reads(monkeypatch)
    blind = replace(SCENE, density=replace(SCENE.density, low=1.5, high=2.0))
    rgba, _ = fresh(source, 32).render(blind)
    assert not rgba.any()
    assert not reads.boxes
    stage = fresh(source, 16)
    stage.render(SCENE)
    assert stage.n_bricks_read > 20
    # Nothing is drawn beyond x = 60, which the last bricks of the rest reach by one voxel.
    for boxes in (reads.boxes["net"], reads.boxes["raw"]):
        assert boxes
        assert min(box[2].start for box in boxes) < 30
    bricks = [box for box in reads.boxes["net"] if box[0].stop - box[0].start <= 18]
    assert max(box[2].stop for box in bricks) <= 65


def test_pictures_from_all_around_share_what_they_read_and_are_those_of_each_alone(
    source: VolumeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_frames, brick_voxels = 6, 16
    dim = tuple(replace(one, extinction=0.01) for one in LOOKS)
    turn = replace(SCENE, classes=dim, movie=Movie(frames=240), camera=Camera(azimuth=20))
    scenes = [frame_scene(turn, n) for n in range(n_frames)]
    fresh(source, brick_voxels).render(scenes[0])
    alone = fresh(source, brick_voxels)
    expected = [alone.render(scene) for scene in scenes]
    reads = Reads(monkeypatch)
    for scene in scenes:
        alone.render(scene)
    apart = reads.n_voxels("net")
    together = fresh(source, brick_voxels, pictures_at_once=n_frames)
    together._kept_medium, together._kept_light = alone._kept_medium, alone._kept_light
    reads.boxes.clear()
    found = list(together.render_all(scenes))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert apart / reads.n_voxels("net") >= 0.5 * n_frames


def test_pictures_of_other_ramps_do_not_share(source: VolumeSource) -> None:
    others = tuple(replace(one, low=0.3) for one in LOOKS)
    scenes = [SCENE, replace(SCENE, classes=others), replace(SCENE, camera=Camera(azimuth=90))]
    found = list(StreamedStage(source, 24, pictures_at_once=3).render_all(scenes))
    for scene, picture in zip(scenes, found, strict=True):
        np.testing.assert_array_equal(Stage(load_volume(source)).render(scene)[0], picture[0])


@pytest.mark.parametrize("spp", [1, 2, 5])
def test_a_picture_that_grows_ends_as_the_one_that_does_not(source: VolumeSource, spp: int) -> None:
    scene = replace(SCENE, quality=replace(SCENE.quality, spp=spp))
    whole = Stage(load_volume(source))
    expected = whole.render(scene)[0]
    for stage in (whole, StreamedStage(source, 24)):
        grown: dict[int, Any] = {}

        def keep(n: int, rgba: Any, _: Any, grown: dict[int, Any] = grown) -> None:
            grown[n] = rgba

        last, _ = stage.render(scene, snapshot=keep)
        np.testing.assert_array_equal(last, expected)
        assert list(grown) == [n for n in (1, 2, 4) if n < spp] + [spp]
        np.testing.assert_array_equal(grown[spp], expected)
        for n, rgba in grown.items():
            fewer = replace(scene, quality=replace(scene.quality, spp=n))
            np.testing.assert_array_equal(rgba, whole.render(fewer)[0])


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


def test_a_volume_that_is_full_is_told_of(
    source: VolumeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otzi_viewers.render.stream._CROWDED", 0.5)
    full = tuple(replace(one, low=0.0) for one in LOOKS)
    bright = replace(SCENE, classes=full, density=replace(SCENE.density, low=-1.0))
    blind = replace(SCENE, density=replace(SCENE.density, low=1.5, high=2.0))
    for scene, is_full in ((blind, False), (bright, True)):
        told: list[Any] = []
        StreamedStage(source, 64).render(scene, told.append)
        notes = [event.message for event in told if isinstance(event, Noted)]
        assert [bool(re.match(r"something may be seen in 6\d%", note)) for note in notes] == (
            [True] if is_full else []
        )


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
        assert set(pixels[meets]) <= set(rectangle_of(own, view, source).pixels(view.size[0]))


def test_the_plan_takes_the_largest_bricks_that_fit(source: VolumeSource) -> None:
    sides = [stream_plan(source, SCENE, n).brick_voxels for n in (10**9, 4 * 10**7, 2 * 10**7)]
    assert sides == sorted(sides, reverse=True)
    plans = [stream_plan(source, SCENE, n, 40) for n in (2 * 10**7, 4 * 10**7, 10**9)]
    many = [plan.pictures_at_once for plan in plans]
    assert many == sorted(many)
    assert (many[0] < 40, many[-1]) == (True, 40)
    for plan, memory_bytes in zip(plans, (2 * 10**7, 4 * 10**7, 10**9), strict=True):
        assert plan.needed_bytes <= memory_bytes
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
    memory = ("--level", "0", "--memory", "14500000B")
    streamed = otzi(*words, "-o", tmp_path / "streamed.png", *memory)
    assert streamed.code == 0, streamed.err
    assert "streamed in bricks" in streamed.err
    assert "streamed" not in whole.err
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "streamed.png").read_bytes()
    scene.write_text(looks + '[quality]\nlook = "mip"\n')
    refused = otzi(*words, "-o", tmp_path / "mip.png", *memory)
    assert refused.code == 2
    assert "the look mip is not streamed" in refused.err
