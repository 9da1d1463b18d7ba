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
from otzi.errors import MemoryBudgetError, ModelError
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.capability import Capability, capability
from otzi.tiles.cells import blended, is_alone
from otzi.tiles.device import infer_parts_on_device
from otzi.tiles.parts import infer_parts
from otzi.tiles.plan import TilePlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.box import Zyx


class DevicePlaceModel(PlaceModel):
    """The same probabilities as tensors, of up to so many tiles at a time."""

    device = torch.device("cpu")
    turn = nullcontext()
    blends_on_device = True
    arithmetic = "of a place"
    fits = 99

    def infer(self, tiles: torch.Tensor) -> torch.Tensor:
        if len(tiles) > self.fits:
            raise torch.OutOfMemoryError("out of memory")
        return torch.from_numpy(self(tiles.cpu().numpy())).to(self.device)


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


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("tiles_per_block", [(1, 1, 1), (2, 2, 2)])
def test_the_bits_of_a_gpu_are_those_of_the_processor(
    require: Callable[[str, str], None], tiles_per_block: Zyx, dtype: str
) -> None:
    if not torch.cuda.is_available():
        require("gpu", f"torch {torch.__version__} sees no CUDA device here")
    plan = TilePlan((40, 90, 70), 32, 8)
    model = DevicePlaceModel(4, 1)
    model.device = torch.device("cuda")
    there = cells_made(infer_parts_on_device, model, BlockPlan(plan, tiles_per_block), dtype, 3)
    here = cells_made(infer_parts, PlaceModel(4, 1), BlockPlan(plan), dtype, 1)
    for cell, expected in here.items():
        np.testing.assert_array_equal(there[cell], expected)


@pytest.mark.parametrize(("fits", "batch"), [(99, 8), (8, 8), (7, 4), (3, 2), (1, 1)])
def test_as_many_tiles_at_a_time_as_fit_beside_the_sums_of_a_block(fits: int, batch: int) -> None:
    model: Any = DevicePlaceModel(4)
    model.fits = fits
    plan = TilePlan((28, 40, 40), 16, 4)
    assert capability(None, model, plan) == Capability(
        "of a place", batch, BlockPlan(plan, (2, 2, 2))
    )
    assert sum(tile[0] for tile in model.tiles) >= 8
    assert capability(None, model, plan, (1, 1, 3)).batch == (3 if fits >= 3 else 1)


def test_a_block_that_does_not_fit_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = TilePlan((28, 40, 40), 16, 4)
    too_large: Any = DevicePlaceModel(4)
    too_large.fits = 0
    with pytest.raises(MemoryBudgetError, match=r"8 tiles, 1 of them at a time, does not fit"):
        capability(None, too_large, plan)

    def no_room(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("otzi.tiles.device.torch.zeros", no_room)
    model: Any = DevicePlaceModel(4)
    with pytest.raises(MemoryBudgetError, match="smaller --block or --tile"):
        capability(None, model, plan)
    assert model.tiles == []


def test_one_block_at_a_time_has_the_memory_of_a_device() -> None:
    """Beside what it waits for: the next block begins while the last comes back."""

    class Turn:
        n_inside = 0

        def __enter__(self) -> None:
            self.n_inside += 1

        def __exit__(self, *_: object) -> None:
            self.n_inside -= 1

    class Watched(DevicePlaceModel):
        turn: Any = Turn()

        def infer(self, tiles: torch.Tensor) -> torch.Tensor:
            assert self.turn.n_inside == 1
            return super().infer(tiles)

    model = Watched()
    cells_made(infer_parts_on_device, model, BlockPlan(TilePlan((20, 20, 20), 16, 4)), "uint8", 1)
    assert model.turn.n_inside == 0
    assert len(model.tiles) == 8


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
