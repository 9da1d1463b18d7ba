"""The camera: what is where in the picture."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi_viewers.render.camera import Pose, pose
from otzi_viewers.render.scene import Camera

angles = st.floats(-180, 180)
sides = st.floats(1, 500)
cameras = st.builds(
    Camera,
    azimuth=angles,
    elevation=angles,
    roll=angles,
    fov_degrees=st.floats(5, 120),
    target=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    projection=st.sampled_from(["perspective", "orthographic"]),
)


def seen_at(view: Pose, point: np.ndarray) -> tuple[float, float]:
    """Give row and column of a point of the world, in pixels from the upper left corner."""
    away = point - view.eye
    depth = away @ view.forward
    scale = view.distance / depth if view.perspective else 1.0
    width, height = view.size
    row = height / 2 - (away @ view.up) * scale / view.voxels_per_pixel
    return row, width / 2 + (away @ view.right) * scale / view.voxels_per_pixel


@given(cameras, st.tuples(sides, sides, sides), st.sampled_from([(96, 72), (30, 90)]))
def test_the_whole_box_is_in_the_picture_and_before_the_eye(
    camera: Camera, extent: tuple[float, float, float], size: tuple[int, int]
) -> None:
    view = pose(camera, size, np.array(extent))
    seen = []
    for corner in product((-0.5, 0.5), repeat=3):
        point = np.array(corner) * extent
        assert (point - view.eye) @ view.forward > 0
        seen.append(seen_at(view, point))
    rows, columns = np.array(seen).T
    assert rows.min() > 0
    assert rows.max() < size[1]
    assert columns.min() > 0
    assert columns.max() < size[0]
    # As near as that: one corner more would touch a border.
    room = min(rows.min(), size[1] - rows.max(), columns.min(), size[0] - columns.max())
    assert room < 0.05 * max(size)


@given(cameras)
def test_the_axes_of_the_camera_are_unit_vectors_at_right_angles(camera: Camera) -> None:
    view = pose(camera, (96, 72), np.array([10.0, 20.0, 30.0]))
    axes = np.stack([view.right, view.up, -view.forward])
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    # Not mirrored: right, up and toward the viewer are a right-handed system in x, y, z.
    assert np.linalg.det(axes[:, ::-1]) == pytest.approx(1)
    np.testing.assert_allclose(view.to_world(np.eye(3)), axes[::-1], atol=1e-12)


@given(cameras, st.integers(0, 96 * 72 - 1), st.tuples(*[st.floats(0, 0.999)] * 2))
def test_a_ray_meets_what_is_seen_at_its_pixel(
    camera: Camera, pixel: int, offset: tuple[float, float]
) -> None:
    view = pose(camera, (96, 72), np.array([10.0, 20.0, 30.0]))
    origins, directions = view.rays(np.array([pixel]), offset)
    assert np.linalg.norm(directions[0]) == pytest.approx(1)
    row, column = seen_at(view, origins[0] + 17.0 * directions[0])
    assert row == pytest.approx(pixel // 96 + offset[0], abs=1e-6)
    assert column == pytest.approx(pixel % 96 + offset[1], abs=1e-6)


def test_without_angles_x_runs_right_y_up_and_z_to_the_viewer() -> None:
    view = pose(Camera(azimuth=0, elevation=0), (10, 10), np.array([10.0, 10.0, 10.0]))
    np.testing.assert_allclose([view.forward, view.up, view.right], np.diag([-1, 1, 1]), atol=1e-12)


def test_a_turn_to_the_right_brings_the_eye_to_x() -> None:
    view = pose(Camera(azimuth=90, elevation=0), (10, 10), np.array([10.0, 10.0, 10.0]))
    assert view.eye[2] > 0
    np.testing.assert_allclose(view.eye[:2], 0, atol=1e-9)
    above = pose(Camera(azimuth=0, elevation=90), (10, 10), np.array([10.0, 10.0, 10.0]))
    assert above.eye[1] > 0


def test_distance_and_target_are_in_longest_sides() -> None:
    camera = Camera(azimuth=0, elevation=0, distance=2.0, target=(0.1, 0.2, 0.3))
    view = pose(camera, (10, 10), np.array([10.0, 20.0, 40.0]))
    np.testing.assert_allclose(view.eye, [4.0 + 80.0, 8.0, 12.0])
    aside = replace(camera, target=(9.0, 9.0, 9.0), projection="orthographic")
    far = pose(aside, (10, 10), np.array([10.0, 20.0, 40.0]))
    corners = np.array(list(product((-0.5, 0.5), repeat=3))) * [10, 20, 40]
    assert ((corners - far.eye) @ far.forward > 0).all()
