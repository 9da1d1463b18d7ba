"""The whole volume, cell by cell: each tile once, the bits of the dense reference, any executor."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from distributed import LocalCluster

from fake_models import PlaceModel, Slices
from otzi.errors import ModelError
from otzi.events import Advanced, Event
from otzi.execute import Threads, executor
from otzi.tiles.batch import store_tiles
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.plan import TilePlan
from references import blended, blended_uint8

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otzi.box import Box, Zyx
    from otzi.execute import Executor

# Whole tiles, a remainder, thin, smaller than a tile, odd, one plane, primes; tile and overlap.
CASES = [
    ((40, 40, 40), 16, 4),
    ((33, 47, 29), 16, 8),
    ((9, 50, 37), 16, 4),
    ((7, 5, 11), 16, 4),
    ((1, 1, 30), 16, 4),
    ((20, 31, 23), 12, 0),
    ((32, 20, 21), 20, 5),
    ((13, 53, 31), 16, 6),
]
BLOCKS = [(1, 1, 1), (2, 2, 2), (1, 2, 3), (9, 9, 9)]


class Volume:
    """Takes cells and checks that each voxel comes once."""

    def __init__(self, shape: Zyx, dtype: str = "uint8", n_channels: int = 3) -> None:
        self.values = np.zeros((n_channels, *shape), dtype)
        self.writes = np.zeros(shape, int)

    def __call__(self, cell: Box, stored: np.ndarray) -> None:
        self.values[(slice(None), *cell.slices)] = stored
        self.writes[cell.slices] += 1


def density(shape: Zyx) -> np.ndarray:
    values: np.ndarray = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    return values


def store(
    shape: Zyx, model: PlaceModel, blocks: BlockPlan, running: Executor, **how: Any
) -> Volume:
    taken = Volume(shape, how.get("dtype", "uint8"), 3 + model.n_measures)
    store_tiles(Slices(density(shape)), model, blocks, taken, running, **how)
    return taken


@pytest.fixture(scope="module", params=["local", "processes:2", "tcp"])
def running(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "tcp":  # a scheduler that somebody else has started
        with LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        ) as cluster:
            with executor(cluster.scheduler_address) as it:
                yield it
    else:
        with executor(request.param, workers=3) as it:
            yield it


@pytest.mark.parametrize("tiles_per_block", BLOCKS)
@pytest.mark.parametrize(("shape", "tile", "overlap"), CASES)
def test_the_bits_are_those_of_the_dense_reference(
    shape: Zyx, tile: int, overlap: int, tiles_per_block: Zyx
) -> None:
    blocks = BlockPlan(TilePlan(shape, tile, overlap), tiles_per_block)
    model, events = PlaceModel(), list[Event]()
    n_tiles = blocks.plan.n_tiles
    with_threads = Threads(2)
    taken = store(shape, model, blocks, with_threads, batch=3, listen=events.append)
    with_threads.close()
    expected = blended_uint8(blended(density(shape), PlaceModel(), tile, overlap))
    np.testing.assert_array_equal(taken.values, expected)
    assert (taken.writes == 1).all()
    assert len(model.tiles) == n_tiles
    assert sum(e.units for e in events if isinstance(e, Advanced)) == n_tiles


@pytest.mark.parametrize("tiles_per_block", [(1, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
def test_the_executor_does_not_show(
    running: Executor, tmp_path: Path, dtype: str, tiles_per_block: Zyx
) -> None:
    shape, plan = (20, 45, 33), TilePlan((20, 45, 33), 16, 4)
    one = Threads(1)
    expected = store(shape, PlaceModel(), BlockPlan(plan), one, dtype=dtype)
    one.close()
    model = PlaceModel(count=tmp_path / "count")
    taken = store(shape, model, BlockPlan(plan, tiles_per_block), running, dtype=dtype)
    np.testing.assert_array_equal(taken.values, expected.values)
    assert (taken.writes == 1).all()
    assert (tmp_path / "count").stat().st_size == plan.n_tiles


@pytest.mark.parametrize("tiles_per_block", BLOCKS)
def test_measures_are_blended_beside_the_classes(tiles_per_block: Zyx) -> None:
    shape, plan = (20, 31, 23), TilePlan((20, 31, 23), 12, 4)
    threads = Threads(2)
    blocks = BlockPlan(plan, tiles_per_block)
    taken = store(shape, PlaceModel(n_measures=1), blocks, threads, batch=2)
    plain = store(shape, PlaceModel(), blocks, threads)
    threads.close()
    np.testing.assert_array_equal(taken.values[:3], plain.values)
    # A measure that is the same at every voxel of every tile would stay what it is.
    assert taken.values[3].min() >= 0
    assert taken.values[3].std() > 10


@pytest.mark.parametrize("tiles_per_block", [(1, 1, 1), (2, 1, 2)])
@pytest.mark.parametrize("share_done", [0.3, 0.8, 1.0])
def test_what_is_done_is_left_out(
    running: Executor, tmp_path: Path, share_done: float, tiles_per_block: Zyx
) -> None:
    """Only the other cells are made, of the blocks that they need."""
    shape, plan = (20, 40, 60), TilePlan((20, 40, 60), 16, 4)
    blocks = BlockPlan(plan, tiles_per_block)
    rng = np.random.default_rng(1)
    done = {plan.cell(index) for index in plan.tiles if rng.random() < share_done}
    model = PlaceModel(count=tmp_path / "count")
    model.count.touch()
    taken = Volume(shape)
    n_inferred = store_tiles(
        Slices(density(shape)), model, blocks, taken, running, is_done=done.__contains__
    )
    whole = blended_uint8(blended(density(shape), PlaceModel(), 16, 4))
    left = [index for index in plan.tiles if plan.cell(index) not in done]
    expected = np.zeros(shape, int)
    for index in left:
        expected[plan.cell(index).slices] = 1
    np.testing.assert_array_equal(taken.writes, expected)
    np.testing.assert_array_equal(taken.values, whole * expected)
    needed = {block for index in left for block in blocks.contributors(index)}
    n_needed = sum(len(blocks.members(block)) for block in needed)
    assert n_inferred == n_needed == model.count.stat().st_size


def test_a_tile_waits_for_the_cells_before_it() -> None:
    """At no time are more tiles read than cells taken, plus the window."""
    shape: Zyx = (8, 8, 160)
    blocks = BlockPlan(TilePlan(shape, 16, 8))
    started, taken, most = [0], [0], [0]

    def read(box: Box) -> np.ndarray:
        started[0] += 1
        most[0] = max(most[0], started[0] - taken[0])
        return np.zeros(box.shape, np.float32)

    def take(cell: Box, stored: np.ndarray) -> None:
        taken[0] += 1

    threads = Threads(1)
    store_tiles(read, PlaceModel(), blocks, take, threads)
    threads.close()
    assert started[0] == taken[0] == blocks.plan.n_tiles == 19
    assert most[0] <= 3


def test_what_waits_is_no_more_than_the_frontier() -> None:
    """And what a single tile takes, in a volume many tiles long and six across."""

    def peak_bytes(shape: Zyx) -> int:
        volume, blocks = density(shape), BlockPlan(TilePlan(shape, 64, 16))
        threads = Threads(1)
        tracemalloc.start()
        store_tiles(Slices(volume), PlaceModel(), blocks, lambda *_: None, threads)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        threads.close()
        return peak

    one, long = (64, 64, 64), (112, 160, 400)
    frontier_bytes = BlockPlan(TilePlan(long, 64, 16)).frontier_bytes(2, 3)
    peak_bytes(one)  # what is made once stays
    assert peak_bytes(long) < 1.3 * (peak_bytes(one) + frontier_bytes)


class NotANumberAt(PlaceModel):
    """Gives NaN in the tile that has the largest density at its beginning."""

    def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
        outputs = super().__call__(tiles)
        outputs[tiles[:, 0, 0, 0, 0] > 90, 1, 3, 3, 3] = np.nan
        return outputs

    def __str__(self) -> str:
        return "the model of the test"


@pytest.mark.parametrize("tiles_per_block", [(1, 1, 1), (2, 2, 2)])
def test_a_tile_of_no_probabilities_is_named(tiles_per_block: Zyx) -> None:
    volume = density((20, 40, 40))
    volume[0, 12, 24] = 99
    blocks = BlockPlan(TilePlan((20, 40, 40), 16, 4), tiles_per_block)
    threads = Threads(2)
    with pytest.raises(ModelError) as refused:
        store_tiles(Slices(volume), NotANumberAt(), blocks, lambda *_: None, threads)
    threads.close()
    assert str(refused.value) == (
        "tile (0, 1, 2) at voxel (0, 12, 24) by the model of the test: the model gives nan as a "
        "probability: they are 0 to 1, train it longer or at a lower learning rate"
    )


class TooFew(PlaceModel):
    def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
        return super().__call__(tiles)[:, :2]


def test_a_model_of_other_channels_is_refused() -> None:
    blocks = BlockPlan(TilePlan((20, 40, 40), 16, 4))
    threads = Threads(2)
    with pytest.raises(ModelError, match="one channel for each of background, membrane, lumen"):
        store((20, 40, 40), TooFew(), blocks, threads)
    threads.close()
