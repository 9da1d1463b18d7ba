"""Frames: a whole turn, keyframes met exactly, nothing overshoots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.errors import ConfigurationError
from otzi_viewers.render.movie import frame_scene
from otzi_viewers.render.scene import Camera, ClassLook, Keyframe, Light, Movie, Scene

LOOKS = (ClassLook("a", low=0.1, color="#000000", clip=(0.0, 0.0, 1.0, 0.5)),)


def test_a_turn_comes_round_and_does_not_repeat_its_first_frame() -> None:
    scene = Scene(movie=Movie(frames=8, turn_degrees=360), camera=Camera(azimuth=10))
    azimuths = [frame_scene(scene, n).camera.azimuth for n in range(8)]
    np.testing.assert_allclose(azimuths, 10 + 45 * np.arange(8))


def test_an_eased_turn_begins_and_ends_slowly() -> None:
    scene = Scene(movie=Movie(frames=100, ease=True), camera=Camera(azimuth=0))
    steps = np.diff([frame_scene(scene, n).camera.azimuth for n in range(100)])
    assert (steps > 0).all()
    assert steps[0] < 0.1 * steps[50] > steps[-1]


def test_light_that_stays_is_baked_for_a_movie() -> None:
    for attach, lighting in (("scene", "baked"), ("camera", "auto")):
        frame = frame_scene(Scene(light=Light(attach=attach)), 0)
        assert frame.quality.lighting == lighting


def test_keyframes_are_met_and_what_they_leave_out_is_the_scene() -> None:
    keyframes = (
        Keyframe(at=0.5, elevation=60.0, low=(0.4,), color=("#ff8000",)),
        Keyframe(at=1.0, elevation=20.0, distance=1.0, clip=((0.0, 0.0, 1.0, -0.5),)),
    )
    camera = Camera(azimuth=7, elevation=0, distance=3.0)
    scene = Scene(LOOKS, camera=camera, movie=Movie(101, turn_degrees=0), keyframes=keyframes)
    first, middle, last = (frame_scene(scene, n) for n in (0, 50, 100))
    assert first == replace(
        scene, movie=replace(scene.movie, frames=1), keyframes=(), quality=first.quality
    )
    assert middle.camera.elevation == pytest.approx(60)
    assert middle.classes[0].low == pytest.approx(0.4)
    assert middle.classes[0].color == "#ff8000"
    assert last.camera.distance == pytest.approx(1.0)
    assert last.camera.azimuth == 7
    assert last.classes[0].low == pytest.approx(0.4)
    assert last.classes[0].clip == pytest.approx((0, 0, 1, -0.5))


@given(
    st.lists(st.floats(-90, 90).map(lambda degrees: round(degrees, 3)), min_size=1, max_size=5),
    st.integers(0, 40),
)
def test_nothing_overshoots_its_keyframes(elevations: list[float], frame: int) -> None:
    times = np.linspace(0, 1, len(elevations) + 1)[1:]
    keyframes = tuple(
        Keyframe(at=float(t), elevation=e) for t, e in zip(times, elevations, strict=True)
    )
    scene = Scene(camera=Camera(elevation=0), movie=Movie(41), keyframes=keyframes)
    found = frame_scene(scene, frame).camera.elevation
    assert min(0, *elevations) - 1e-9 <= found <= max(0, *elevations) + 1e-9


def test_a_keyframe_needs_something_to_come_from() -> None:
    scene = Scene(keyframes=(Keyframe(at=1, distance=1.0),))
    with pytest.raises(ConfigurationError, match=r"give the scene's \[camera\] one"):
        frame_scene(scene, 0)
    bare = Scene((ClassLook("a"),), keyframes=(Keyframe(at=1, low=(0.2,)),))
    with pytest.raises(ConfigurationError, match="give class a of the scene one"):
        frame_scene(bare, 0)
