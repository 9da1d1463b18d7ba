"""Where the camera stands if it is not told: all that is drawn is seen, from no farther."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.events import ignore
from otzi_viewers.render.camera import pose
from otzi_viewers.render.framing import drawn_corners, framed
from otzi_viewers.render.movie import frame_scene
from otzi_viewers.render.scene import Camera, Movie, Scene
from pictures import SEE_THROUGH, add_probs, look, scene_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SHAPE = (48, 64, 80)
EXTENT = np.array([96.0, 64.0, 80.0])
LOOK = look("membrane", low=0.2)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    """A block of membrane in one corner of an empty volume."""
    made = add_tomogram(np.random.default_rng(0).normal(0, 99, SHAPE).astype(np.int16))
    drawn = np.zeros((2, *SHAPE), np.uint8)
    drawn[0, 9:15, 17:31, 57:71] = 200
    add_probs(made, "net", drawn, ("background", "membrane", "lumen"))
    return made


def test_the_corners_are_those_of_the_bricks_that_show_something(tomo: Tomogram) -> None:
    scene = scene_of(LOOK, density=SEE_THROUGH)
    corners = drawn_corners(tomo, "net", scene, 0, ignore)
    expected_low = np.array([8 * 2, 16, 56]) - EXTENT / 2
    expected_high = np.array([16 * 2, 32, 72]) - EXTENT / 2
    np.testing.assert_allclose(corners.min(axis=0), expected_low)
    np.testing.assert_allclose(corners.max(axis=0), expected_high)
    blind = scene_of(replace(LOOK, low=0.9), density=SEE_THROUGH)
    nothing = drawn_corners(tomo, "net", blind, 0, ignore)
    np.testing.assert_allclose(nothing.max(axis=0), EXTENT / 2)
    np.testing.assert_allclose(nothing.min(axis=0), -EXTENT / 2)


def in_picture(scene: Scene, corners: np.ndarray) -> np.ndarray:
    """Give the largest share of half a side of the picture at which each corner is seen."""
    view = pose(scene.camera, scene.output.size, EXTENT)
    away = corners - view.eye
    scale = view.distance / (away @ view.forward) if view.perspective else np.ones(len(away))
    width, height = view.size
    half = view.voxels_per_pixel / 2 * np.array([height, width])
    aside = np.abs(np.stack([away @ view.up, away @ view.right], axis=1)) * scale[:, None]
    return (aside / half).max(axis=1)


cameras = st.builds(
    Camera,
    azimuth=st.floats(-180, 180),
    elevation=st.floats(-80, 80),
    roll=st.floats(-180, 180),
    fov_degrees=st.floats(5, 90),
    projection=st.sampled_from(["perspective", "orthographic"]),
)


@given(cameras, st.integers(0, 99), st.integers(1, 5))
def test_every_frame_shows_every_corner_and_none_is_farther_than_one_needs(
    camera: Camera, seed: int, n_frames: int
) -> None:
    corners = np.random.default_rng(seed).uniform(-0.5, 0.5, (9, 3)) * EXTENT
    scene = Scene(camera=camera, movie=Movie(frames=n_frames))
    frames = framed([frame_scene(scene, n) for n in range(n_frames)], corners, EXTENT)
    shares = [in_picture(frame, corners).max() for frame in frames]
    assert max(shares) == pytest.approx(1 / 1.04, rel=1e-6)
    assert len({(frame.camera.target, frame.camera.distance) for frame in frames}) == 1
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2 / EXTENT.max()
    np.testing.assert_allclose(frames[0].camera.target, middle)


def test_what_the_scene_says_stays() -> None:
    corners = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    told = Scene(camera=Camera(target=(0.1, 0.2, 0.3), distance=1.5))
    assert framed([told], corners, EXTENT) == [told]
    (aimed,) = framed([Scene(camera=Camera(distance=1.5))], corners, EXTENT)
    assert aimed.camera.distance == 1.5
    (near,) = framed([Scene(camera=Camera(target=(0.0, 0.0, 0.0)))], corners, EXTENT)
    assert near.camera.target == (0.0, 0.0, 0.0)
    assert near.camera.distance is not None
