"""Segmentation on processes: the same bytes, whatever runs it; ensembles and their spread."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelled import shells
from otzi.errors import ModelError
from otzi.events import Advanced, Event
from otzi.execute import executor
from otzi.networks.weights import load_model
from otzi.tiles.ensemble import Ensemble, ensemble_of
from otzi_pipelines.segment.report import read_report
from otzi_pipelines.segment.segmentation import segment
from otzi_pipelines.segment.verb import _gpus
from test_segment import SHAPE, TILES, make_model, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from commands import Otzi
    from otzi.execute import Executor
    from otzi.tiles.infer import TorchModel
    from otzi.tomogram import Tomogram


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with executor("processes:2") as running:
        yield running


@pytest.fixture
def models(tmp_path: Path) -> list[TorchModel]:
    folders = [make_model(tmp_path / f"model{seed}", seed=seed) for seed in (0, 1)]
    return [load_model(folder, device="cpu", threads=1) for folder in folders]


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(shells(SHAPE)[0])


def shards(tomo: Tomogram, product: str) -> dict[str, Any]:
    return {name: row for name, row in tomo.manifest(product).items() if "/c/" in name}


@pytest.mark.parametrize("tiles_per_block", [None, (2, 2, 1)])
def test_the_executor_does_not_show(
    tomo: Tomogram, models: list[TorchModel], processes: Executor, tiles_per_block: Any
) -> None:
    events = list[Event]()
    segment(tomo, models[0], name="here", workers=2, **TILES)
    segment(
        tomo,
        models[0],
        name="there",
        executor=processes,
        workers=2,
        tiles_per_block=tiles_per_block,
        memory_bytes=10**11,
        listen=events.append,
        **TILES,
    )
    assert shards(tomo, "probs/there") == shards(tomo, "probs/here") != {}
    n_cells = read_report(tomo, "there")["tiles"]["n_tiles"]
    advanced = [e.name for e in events if isinstance(e, Advanced)]
    assert advanced.count("segment ts_001") == n_cells


def test_an_ensemble_says_how_far_its_members_differ(
    tomo: Tomogram, models: list[TorchModel], processes: Executor
) -> None:
    both = Ensemble(models, 4)
    segment(tomo, both, name="here", **TILES)
    segment(tomo, both, name="there", executor=processes, tiles_per_block=(1, 2, 2), **TILES)
    for product in ("probs", "spread"):
        assert shards(tomo, f"{product}/here") == shards(tomo, f"{product}/there") != {}
    spread = tomo.array("spread/here")[...]
    assert spread.shape == (1, *SHAPE)
    assert 0 < spread.mean() < spread.max() <= 128
    assert tomo.image("spread/here").channels == ("spread",)
    assert (stored(tomo, "here").sum(0, dtype=int) == 255).all()
    made = tomo.attributes("probs/here")
    assert made["recipe"]["model"] == both.identity
    assert made["model"]["flips"] == 4
    assert [m["sha256"] for m in made["model"]["members"]] == [m.card.sha256 for m in models]


def test_the_spread_is_made_again_where_it_is_lost(
    tomo: Tomogram, models: list[TorchModel]
) -> None:
    both = ensemble_of(models)
    assert segment(tomo, both, name="net", **TILES)
    assert not segment(tomo, both, name="net", **TILES)
    (tomo.folder / "spread" / "net" / "zarr.json").unlink()
    before = stored(tomo)
    assert segment(tomo, both, name="net", **TILES)
    np.testing.assert_array_equal(stored(tomo), before)
    assert tomo.has("spread/net")


def test_one_network_has_no_spread(tomo: Tomogram, models: list[TorchModel]) -> None:
    segment(tomo, models[0], name="net", **TILES)
    assert not tomo.has("spread/net")


def test_a_worker_s_refusal_names_tile_and_model(
    tomo: Tomogram, models: list[TorchModel], processes: Executor, tmp_path: Path
) -> None:
    import torch

    from otzi.networks.weights import load_card, save_model

    network = models[0].network
    with torch.no_grad():
        next(iter(network.parameters())).fill_(torch.nan)
    save_model(tmp_path / "sick", network, load_card(models[0].path))
    sick = load_model(tmp_path / "sick", device="cpu", threads=1)
    with pytest.raises(ModelError, match=r"tile \(\d, \d, \d\) at voxel .* by model .*/sick: "):
        segment(tomo, sick, name="net", executor=processes, **TILES)
    assert not tomo.has("probs/net")
    assert not list((tomo.collection.path / ".staging").glob("*.journal"))


@pytest.mark.parametrize(
    ("kind", "device", "expected"),
    [("processes", "auto", 3), ("processes", "cpu", None), ("tcp", "cuda", None)],
)
def test_a_gpu_has_one_process_of_its_machine(
    monkeypatch: pytest.MonkeyPatch, kind: str, device: Any, expected: int | None
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert _gpus(kind, device) == expected


def test_the_verb_on_processes(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path, otzi: Otzi
) -> None:
    for name in ("ts_001", "ts_002", "ts_003"):
        tomo = add_tomogram(shells((10, 20, 30))[0], name)
    (tomo.collection["ts_002"].path("raw") / "0" / "c" / "0" / "0" / "0").unlink()
    words: tuple[object, ...] = ("segment", tomo.collection.path, "--name", "net", "--json")
    for seed in (0, 1):
        words = (*words, "--model", make_model(tmp_path / str(seed), seed=seed))
    words = (*words, "--tile", 16, "--overlap", 4, "--device", "cpu")
    ran = otzi(*words, "--executor", "processes:2", "--volumes", 2, "--block", "1,2,1")
    assert (ran.code, "ts_002 is left out" in ran.err) == (5, True), ran.err
    results = json.loads(ran.out)
    assert [result["made"] for result in results.values()] == [True, False, True]
    assert results["ts_003"]["run"]["coverage"]["share"] == 1
    again = json.loads(otzi(*words, "ts_001").out)
    assert again["ts_001"]["made"] is False
    for extra, names in [
        (("--block", "2"), "--block '2': give tiles along z, y and x"),
        (("--flips", 3), "3 mirror images: choose 1, 4, 8"),
        (("--executor", "grid"), "executor 'grid' is none of local"),
    ]:
        refused = otzi(*words, *extra)
        assert (refused.code, names in refused.err) == (2, True), refused.err
