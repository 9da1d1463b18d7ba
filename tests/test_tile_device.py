"""What is made on a device: the integers that processors make, in any batch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_models import PlaceModel
from otzi.errors import ModelError
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.device import infer_parts_on_device
from otzi.tiles.parts import blended, infer_parts, is_alone
from otzi.tiles.plan import TilePlan

if TYPE_CHECKING:
    from otzi.box import Zyx


class DevicePlaceModel(PlaceModel):
    """The same probabilities as tensors."""

    device = torch.device("cpu")
    turn = nullcontext()

    def infer(self, tiles: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self(tiles.numpy()))


def volume(shape: Zyx, seed: int = 0) -> np.ndarray:
    values: np.ndarray = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    return values


def cells_made(infer: Any, model: PlaceModel, blocks: BlockPlan, dtype: Any, batch: int) -> Any:
    """Give every cell, of parts made block by block."""
    whole = volume(blocks.plan.shape)
    parts: dict[Any, Any] = {}
    for block in blocks.sweep:
        cells = blocks.dependents(block)
        density = whole[blocks.read(block).slices]
        made = infer(density, model, blocks, block, cells, dtype, batch)
        parts.update(zip([(block, cell) for cell in cells], made, strict=True))
    return {
        cell: parts[blocks.contributors(cell)[0], cell]
        if is_alone(blocks, cell)
        else blended(
            blocks, cell, dtype, 3, *(parts[block, cell] for block in blocks.contributors(cell))
        )
        for cell in blocks.plan.tiles
    }


@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.sampled_from([(16, 4), (8, 4), (12, 0)]),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.sampled_from(["uint8", "float16", "float32"]),
    st.integers(0, 1),
    st.integers(1, 5),
)
@settings(max_examples=60)
def test_the_bits_are_those_of_the_processor(
    shape: Zyx,
    tiles: tuple[int, int],
    tiles_per_block: Zyx,
    dtype: str,
    n_measures: int,
    batch: int,
) -> None:
    plan = TilePlan(shape, *tiles)
    blocks = BlockPlan(plan, tiles_per_block)
    model = DevicePlaceModel(4, n_measures)
    there = cells_made(infer_parts_on_device, model, blocks, dtype, batch)
    here = cells_made(infer_parts, PlaceModel(4, n_measures), BlockPlan(plan), dtype, 1)
    assert sum(shape[0] for shape in model.tiles) == plan.n_tiles
    for cell, expected in here.items():
        assert there[cell].dtype == expected.dtype
        np.testing.assert_array_equal(there[cell], expected)


def test_certainty_does_not_overflow() -> None:
    """The largest sum is beyond what a signed number of 32 bits holds."""

    class Certain(DevicePlaceModel):
        def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
            outputs = np.zeros_like(super().__call__(tiles))
            outputs[:, 2] = 1
            return outputs

    blocks = BlockPlan(TilePlan((20, 20, 20), 16, 4), (2, 2, 2))
    for cell in cells_made(infer_parts_on_device, Certain(), blocks, "uint8", 2).values():
        assert (cell == np.array([0, 0, 255])[:, None, None, None]).all()


@pytest.mark.parametrize(
    ("value", "says"), [(np.nan, "gives nan"), (-0.5, "gives -0.5"), (2.0, "miss a sum of 1 by")]
)
def test_a_tile_of_no_probabilities_is_named(value: float, says: str) -> None:
    class Wrong(DevicePlaceModel):
        def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
            outputs = super().__call__(tiles)
            outputs[1:, 0, 5, 5, 5] = value
            return outputs

        def __str__(self) -> str:
            return "a wrong model"

    blocks = BlockPlan(TilePlan((16, 28, 28), 16, 4), (1, 2, 2))
    with pytest.raises(ModelError, match=rf"tile \(0, 0, 1\) .* by a wrong model: .*{says}"):
        cells_made(infer_parts_on_device, Wrong(), blocks, "uint8", 4)
