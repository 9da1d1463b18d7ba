"""Points that cover a pixel and fill the ball evenly."""

from __future__ import annotations

import numpy as np

from otzi_viewers.render.reference_fields import keyed_uniform
from otzi_viewers.render.sampling import ball_points, subpixel_offset


def test_draws_are_uniform_and_do_not_hang_together() -> None:
    pixels = np.arange(20_000)
    draws = np.array([keyed_uniform(1, 0, step, pixels, n) for step in (0, 1) for n in (0, 1)])
    counts = np.array([np.histogram(row, 20, (0, 1))[0] for row in draws])
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()
    rows = np.vstack([draws, np.roll(draws, 1, axis=1)])
    assert np.abs(np.corrcoef(rows) - np.eye(8)).max() < 0.03


def test_points_fill_the_ball_evenly_from_anywhere() -> None:
    points = ball_points(1024)
    radii = np.linalg.norm(points, axis=1)
    assert radii.max() <= 1
    np.testing.assert_allclose(
        np.quantile(radii**3, (0.25, 0.5, 0.75)), (0.25, 0.5, 0.75), atol=0.01
    )
    np.testing.assert_allclose(points.T @ points / 1024, np.eye(3) / 5, atol=0.01)
    runs = np.array(
        [np.take(points, np.arange(i, i + 24), axis=0, mode="wrap") for i in range(1024)]
    )
    scatter_of_independent_points = np.sqrt(1 / 5 / 24)
    assert runs.mean(axis=1).std() < 0.6 * scatter_of_independent_points


def test_the_first_ray_is_in_the_middle_of_its_pixel_and_all_cover_it() -> None:
    assert subpixel_offset(0) == (0.5, 0.5)
    for count in (4, 16, 64):
        offsets = np.array([subpixel_offset(sample) for sample in range(count)])
        assert ((offsets >= 0) & (offsets < 1)).all()
        np.testing.assert_allclose(offsets.mean(axis=0), 0.5, atol=0.6 / count**0.5)
        side = int(count**0.5)
        cells = np.unique((offsets * side).astype(int) @ [side, 1])
        assert len(cells) > 0.6 * count
