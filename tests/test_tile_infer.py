"""Networks as models: memory that runs out is told, and what a worker can do is found out there."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from otzi.errors import DeviceUnavailable, MemoryBudgetError, UsageError
from otzi.execute import Threads
from otzi.tiles import infer
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.capability import Capability, capability, fitting_batch
from otzi.tiles.infer import TorchModel, choose_device
from otzi.tiles.plan import TilePlan
from test_tile_ensemble import make

if TYPE_CHECKING:
    from pathlib import Path

TILE = np.random.default_rng(0).normal(0, 1, (1, 1, 8, 8, 8)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> TorchModel:
    return make(tmp_path, 1)


@pytest.mark.parametrize(("fits", "found"), [(99, 16), (16, 16), (15, 8), (5, 4), (1, 1)])
def test_the_largest_batch_that_fits_is_found_by_halving(fits: int, found: int) -> None:
    tried = list[int]()

    def infer(n: int) -> None:
        tried.append(n)
        if n > fits:
            raise MemoryBudgetError("too many")

    assert fitting_batch(infer) == found
    assert tried == [n for n in (16, 8, 4, 2, 1) if n >= found]


def test_one_tile_that_does_not_fit_is_an_error() -> None:
    def infer(n: int) -> None:
        raise MemoryBudgetError(f"{n} tiles do not fit")

    with pytest.raises(MemoryBudgetError, match="1 tiles do not fit"):
        fitting_batch(infer)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_names_the_remedy(
    model: TorchModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(tiles: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(model.network, "probabilities", fail)
    with pytest.raises(MemoryBudgetError, match=r"1 tiles of \(8, 8, 8\) voxels .* smaller --tile"):
        model(TILE)


def test_other_failures_stay_what_they_are(
    model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tiles: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a shape is wrong")

    monkeypatch.setattr(model.network, "probabilities", fail)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        model(TILE)


def test_a_processor_takes_a_tile_at_a_time_in_float32(model: TorchModel) -> None:
    plan = TilePlan((20, 20, 20), 8, 2)
    expected = Capability(f"torch {torch.__version__} on cpu", 1, BlockPlan(plan))
    assert capability(None, model, plan) == expected
    threads = Threads(1)
    assert capability(threads, model, plan) == expected
    threads.close()
    assert capability(None, model, plan, (1, 2, 2)).blocks == BlockPlan(plan, (1, 2, 2))


def test_copies_in_one_process_are_one_model(model: TorchModel) -> None:
    one, other = (pickle.loads(pickle.dumps(model)) for _ in range(2))
    assert one is other
    np.testing.assert_array_equal(one(TILE), model(TILE))


def test_threads_that_begin_together_load_one_model(
    model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_loaded, load = list[int](), infer.load_model

    def counted(*arguments: object, **how: object) -> TorchModel:
        n_loaded.append(1)
        return load(*arguments, **how)  # type: ignore[arg-type]

    sent = pickle.dumps(model)
    monkeypatch.setattr(infer, "load_model", counted)
    infer._loaded.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(pickle.loads, [sent] * 4))
    assert len(n_loaded) == 1
    assert len({id(one) for one in found}) == 1


def test_a_model_replaced_in_the_meantime_is_refused(model: TorchModel, tmp_path: Path) -> None:
    sent = pickle.dumps(model)
    other = make(tmp_path / "other", 2)
    for file in other.path.iterdir():
        (model.path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UsageError, match="was replaced while it was in use"):
        pickle.loads(sent)


def test_devices_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="device 'tpu'"):
        choose_device("tpu")  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(DeviceUnavailable, match="no CUDA device"):
            choose_device("cuda")


@pytest.mark.parametrize(
    ("name", "n_gpus", "expected"), [(0, 4, 0), (3, 4, 3), (5, 4, 1), (3, 1, 0), ("job-3", 4, 0)]
)
def test_workers_of_a_machine_share_out_its_gpus(
    monkeypatch: pytest.MonkeyPatch, name: object, n_gpus: int, expected: int
) -> None:
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(name=name))
    assert infer._own_gpu(n_gpus) == expected


def test_outside_of_a_worker_the_first_gpu_is_taken() -> None:
    assert infer._own_gpu(4) == 0
