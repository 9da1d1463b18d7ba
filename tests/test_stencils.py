"""Tiles: every voxel of a plane in exactly one, none larger than the scratch is made for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otzi.pseudo.stencils import MOST_MARGIN, PLANE, tiles

lengths = st.integers(1, 300)


@given(st.integers(1, 4), lengths, lengths, st.integers(1, MOST_MARGIN))
def test_tiles_cover_every_voxel_once(depth: int, height: int, width: int, margin: int) -> None:
    shape = depth + 2 * margin, height + 2 * margin, width + 2 * margin
    image = np.arange(np.prod(shape)).reshape(shape)
    covered = np.zeros((height, width), int)
    for tile in tiles(shape, margin, depth - 1, 1):
        y, x, rows, columns = (int(v) for v in (tile.y, tile.x, tile.rows, tile.columns))
        assert (rows + 2 * margin) * (columns + 2 * margin) + margin <= PLANE
        assert tile.first == image[depth - 1 + margin, y + margin, x + margin]
        covered[y : y + rows, x : x + columns] += 1
    assert (covered == 1).all()
