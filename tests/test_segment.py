"""Segmentation: the stored probabilities are the lazy ones, whole, within the memory allowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import otzi as library
from labelled import shells
from otzi.errors import MemoryBudgetError, ModelError, UsageError
from otzi.events import Advanced, Event, Noted, Warned
from otzi.execute import Threads
from otzi.memory import resident_memory_bytes
from otzi.networks.architectures import build, config_from_json
from otzi.networks.weights import ModelCard, load_model, save_model
from otzi.store.groups import read_group
from otzi.tiles.blocks import BlockPlan
from otzi.tiles.infer import TorchModel
from otzi.tiles.plan import TilePlan
from otzi_pipelines.segment import budget, segmentation
from otzi_pipelines.segment.segmentation import segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from commands import Otzi
    from otzi.box import Zyx
    from otzi.tomogram import Tomogram

CLASSES = ("background", "membrane", "lumen")
TILES: dict[str, Any] = {"tile": 16, "overlap": 4}
SHAPE = (20, 45, 33)


def make_model(folder: Path, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    fields = {"n_classes": len(classes), "width": 4, "levels": 3}
    config = config_from_json("residual-unet", fields)
    network = build(config)
    network.initialise(torch.Generator().manual_seed(seed))
    save_model(
        folder,
        network,
        ModelCard(classes=classes, config=asdict(config), spacing_angstrom=(20.0, 10.0, 10.0)),
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def model(folder: Path) -> TorchModel:
    return load_model(folder, device="cpu", threads=1)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(shells(SHAPE)[0])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Give the shapes of all tiles that the network sees."""
    seen, lock, infer = list[tuple[int, ...]](), threading.Lock(), TorchModel.__call__

    def counted(self: TorchModel, tiles: np.ndarray, /) -> np.ndarray:
        with lock:
            seen.append(tiles.shape[2:])
        return infer(self, tiles)

    monkeypatch.setattr(TorchModel, "__call__", counted)
    return seen


def stored(tomo: Tomogram, name: str = "net") -> np.ndarray:
    return tomo.array(f"probs/{name}")[...]


# Thicker than a tile, a multiple of the stride, one tile, thinner, much thinner, one plane.
@pytest.mark.parametrize(
    "shape", [SHAPE, (16, 40, 28), (16, 16, 16), (11, 30, 16), (3, 40, 9), (1, 20, 20)]
)
def test_a_volume_of_any_size_is_covered(
    add_tomogram: Callable[..., Tomogram],
    model: TorchModel,
    calls: list[tuple[int, ...]],
    shape: Zyx,
) -> None:
    tomo = add_tomogram(shells(shape)[0])
    assert segment(tomo, model, name="net", **TILES)
    found = stored(tomo)
    assert found.shape == (3, *shape)
    assert found.dtype == np.uint8
    assert (found.sum(0, dtype=int) == 255).all()
    assert len(calls) == TilePlan(shape, 16, 4).n_tiles
    # The network has three levels: sides are multiples of 4, no larger than need be.
    assert set(calls) == {tuple(min(16, -(-n // 4) * 4) for n in shape)}
    lazy = library.predict_tiles(tomo.raw, model, dtype="uint8", **TILES)
    np.testing.assert_array_equal(found, lazy.values)


@pytest.mark.parametrize("depth", [9, 100])
def test_a_volume_thinner_than_the_usual_tile(
    add_tomogram: Callable[..., Tomogram],
    model: TorchModel,
    calls: list[tuple[int, ...]],
    depth: int,
) -> None:
    tomo = add_tomogram(shells((depth, 20, 24))[0])
    assert segment(tomo, model, name="net")
    assert calls == [(-(-depth // 4) * 4, 20, 24)]
    assert (stored(tomo).sum(0, dtype=int) == 255).all()


def test_a_box_of_the_lazy_view_is_that_of_the_product(tomo: Tomogram, model: TorchModel) -> None:
    segment(tomo, model, name="net", **TILES)
    lazy = library.predict_tiles(tomo.raw, model, dtype="uint8", **TILES)
    box = np.s_[:, 5:19, 30:45, 7:26]
    np.testing.assert_array_equal(lazy[box].values, stored(tomo)[box])
    floats = library.predict_tiles(tomo.raw, model, **TILES)[box]
    np.testing.assert_allclose(floats.values, tomo.probs("net")[box].values, atol=1 / 255)


def test_workers_do_not_show(tomo: Tomogram, model: TorchModel) -> None:
    for workers in (1, 3):
        segment(tomo, model, name=f"by{workers}", workers=workers, **TILES)
    manifests = [tomo.manifest(f"probs/by{workers}") for workers in (1, 3)]
    shards = [{k: v for k, v in m.items() if "/c/" in k} for m in manifests]
    assert shards[0] == shards[1]
    assert shards[0]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_other_types_on_request(tomo: Tomogram, model: TorchModel, dtype: Any) -> None:
    segment(tomo, model, name="net", dtype=dtype, **TILES)
    assert stored(tomo).dtype == dtype
    np.testing.assert_allclose(tomo.probs("net").values.sum(0), 1, atol=1e-3)


def test_the_product_says_what_it_is(tomo: Tomogram, model: TorchModel) -> None:
    segment(tomo, model, name="net", **TILES)
    attributes, image = tomo.attributes("probs/net"), tomo.image("probs/net")
    assert attributes["recipe"]["model"] == attributes["model"]["sha256"] == model.card.sha256
    assert attributes["parents"] == {"raw": tomo.digest("raw")}
    assert image.channels == CLASSES
    channels = (read_group(tomo.path("probs/net")) or {})["ome"]["omero"]["channels"]
    colors = [c.color.removeprefix("#") for c in tomo.classes]
    assert [channel["color"].lower() for channel in channels] == colors
    assert tomo.array("probs/net").chunk == (1, 12, 12, 12)


def test_what_is_made_is_not_made_again(
    tomo: Tomogram, tmp_path: Path, model: TorchModel, calls: list[tuple[int, ...]]
) -> None:
    assert segment(tomo, model, name="net", **TILES)
    before, n_calls, events = tomo.path("probs/net"), len(calls), list[Event]()
    assert not segment(tomo, model, name="net", workers=3, listen=events.append, **TILES)
    assert events == [Noted("ts_001 has this probs/net already")]
    assert (tomo.path("probs/net"), len(calls)) == (before, n_calls)
    other = load_model(make_model(tmp_path / "other", seed=1), device="cpu", threads=1)
    assert segment(tomo, other, name="net", **TILES)
    assert segment(tomo, other, name="net", tile=16, overlap=8)
    assert len(calls) > 2 * n_calls


@contextmanager
def fail_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> Iterator[None]:
    """Make the network fail at its n-th tile, and expect that this is what is raised."""
    infer, left = TorchModel.__call__, [call]

    def failing(self: TorchModel, tiles: np.ndarray, /) -> np.ndarray:
        left[0] -= 1
        if not left[0]:
            raise error
        return infer(self, tiles)

    with monkeypatch.context() as patch:
        patch.setattr(TorchModel, "__call__", failing)
        with pytest.raises(type(error)) as raised:
            yield
    assert raised.value is error


def test_a_failure_leaves_what_was_there(
    tomo: Tomogram, tmp_path: Path, model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_model(make_model(tmp_path / "other", seed=1), device="cpu", threads=1)
    with fail_at(monkeypatch, 3, RuntimeError("no more")):
        segment(tomo, model, name="net", **TILES)
    assert not tomo.has("probs/net")
    segment(tomo, model, name="net", **TILES)
    before, product = stored(tomo), tomo.path("probs/net")
    with fail_at(monkeypatch, 3, RuntimeError("no more")):
        segment(tomo, other, name="net", **TILES)
    assert tomo.path("probs/net") == product
    np.testing.assert_array_equal(stored(tomo), before)


def test_an_interrupted_run_goes_on(
    add_tomogram: Callable[..., Tomogram],
    model: TorchModel,
    calls: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cells of 12 voxels lie in shards of 120: of three along x two are whole at the kill."""
    tomo = add_tomogram(shells((12, 12, 300))[0])
    plan = TilePlan((12, 12, 300), 16, 4)
    segment(tomo, model, name="whole", **TILES)
    with fail_at(monkeypatch, plan.n_tiles - 1, KeyboardInterrupt()):
        segment(tomo, model, name="net", **TILES)
    assert not tomo.has("probs/net")
    calls.clear()
    events = list[Event]()
    assert segment(tomo, model, name="net", listen=events.append, **TILES)
    # 240 / 12 cells are written; the others need their own tiles and the one before.
    assert len(calls) == plan.n_tiles - 240 // 12 + 1
    assert sum(e.name == "segment ts_001" for e in events if isinstance(e, Advanced)) == 5
    np.testing.assert_array_equal(stored(tomo), stored(tomo, "whole"))
    for level in (1, 2):
        levels = [tomo.array(f"probs/{name}", level)[...] for name in ("net", "whole")]
        np.testing.assert_array_equal(*levels)


def test_a_model_of_no_probabilities_is_refused(
    tomo: Tomogram, model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        TorchModel, "__call__", lambda self, tiles: np.full((1, 3, *tiles.shape[2:]), np.nan)
    )
    with pytest.raises(ModelError, match="gives nan as a probability"):
        segment(tomo, model, name="net", **TILES)
    assert not tomo.has("probs/net")


def test_tiles_must_fit_the_model(tomo: Tomogram, model: TorchModel) -> None:
    with pytest.raises(UsageError, match=r"tile 18 does not fit the model: .* multiple of 4"):
        segment(tomo, model, name="net", tile=18, overlap=4)
    with pytest.raises(UsageError, match="overlap 12 must be 0 to 8"):
        segment(tomo, model, name="net", tile=16, overlap=12)


def test_another_voxel_size_is_told(
    add_tomogram: Callable[..., Tomogram], model: TorchModel, tmp_path: Path
) -> None:
    tomo = add_tomogram(shells((8, 16, 16))[0])
    statistics = tomo.attributes("raw")["statistics"]
    with tomo.write("raw", dtype="int16", spacing_angstrom=(9.0, 9.0, 9.0), recipe={}) as writer:
        writer[0:8, 0:16, 0:16] = shells((8, 16, 16))[0]
        writer.attributes["statistics"] = statistics
    events = list[Event]()
    segment(tomo.collection["ts_001"], model, name="net", listen=events.append, **TILES)
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert warnings == [
        "voxels of ts_001 are (9.0, 9.0, 9.0) Å, the model was trained at (20.0, 10.0, 10.0) Å: "
        "a network knows one scale"
    ]


def test_two_classes_of_three(tomo: Tomogram, tmp_path: Path) -> None:
    path = make_model(tmp_path / "two", ("background", "foreground"))
    segment(tomo, load_model(path, device="cpu", threads=1), name="net", **TILES)
    assert tomo.image("probs/net").channels == ("background", "foreground")
    assert (stored(tomo).sum(0, dtype=int) == 255).all()


# Memory


def needed(shape: Zyx, model: TorchModel, workers: int) -> int:
    """Give the bytes beside those of the process.

    They are two of each waiting voxel, four of each count of 256 codes, and the network's.
    """
    waiting = BlockPlan(TilePlan(shape, 16, 4)).frontier_bytes(2 * workers, 3)
    counts = 3 * shape[0] * 256 * 4
    return 10**8 + counts + waiting + workers * model.memory_bytes((16, 16, 16))


@pytest.mark.parametrize(("workers", "spare", "expected"), [(4, 0, 4), (4, -1, 3), (1, 0, 1)])
def test_as_many_workers_as_fit(
    tomo: Tomogram,
    model: TorchModel,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    spare: int,
    expected: int,
) -> None:
    monkeypatch.setattr(budget, "resident_memory_bytes", lambda: 10**8)
    used = list[int]()
    monkeypatch.setattr(segmentation, "Threads", lambda n: used.append(n) or Threads(n))
    allowed = 10**8 + needed(SHAPE, model, workers) + spare
    segment(tomo, model, name="net", workers=workers, memory_bytes=allowed, **TILES)
    assert used == [expected]
    running = Threads(7)
    segment(
        tomo,
        model,
        name="other",
        workers=workers,
        executor=running,
        memory_bytes=allowed,
        **TILES,
    )
    running.close()
    assert used == [expected] * 2


def test_too_little_memory_is_named(
    tomo: Tomogram, model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "resident_memory_bytes", lambda: 10**8)
    least = 10**8 + needed(SHAPE, model, 1)
    with pytest.raises(MemoryBudgetError) as refused:
        segment(tomo, model, name="net", memory_bytes=least - 1, workers=2, **TILES)
    assert str(refused.value) == (
        f"one tile of 16 voxels at a time needs {least / 1e6:.1f} MB "
        f"({model.memory_bytes((16, 16, 16)) / 1e6:.1f} MB for the network, the rest for "
        f"unfinished cells and the process), --memory is {least / 1e6:.1f} MB: allow more, or a "
        "smaller --tile"
    )
    assert not tomo.has("probs/net")


def test_the_resident_set_is_what_is_held_now() -> None:
    before = resident_memory_bytes()
    block = np.ones(200 << 20, np.uint8)
    assert 190 << 20 < resident_memory_bytes() - before < 220 << 20
    del block
    assert resident_memory_bytes() - before < 100 << 20


def test_freed_blocks_go_back_to_the_system() -> None:
    code = """
import sys
import numpy as np
from otzi.memory import give_back_freed_memory, resident_memory_bytes
if sys.argv[1] == "yes":
    give_back_freed_memory()
np.ones(20 << 20, np.uint8)  # the first that is freed tells glibc to keep such blocks
filled = [bytearray(5000) for _ in range(1000)]  # holes that imports left, where pins would go
before = resident_memory_bytes()
blocks, pins = [], []
for _ in range(40):
    blocks.append(np.ones(4 << 20, np.uint8))
    pins.append(bytearray(5000))
del blocks
print(resident_memory_bytes() - before)
"""

    def kept(asked: str) -> int:
        words = [sys.executable, "-c", code, asked]
        # Worker processes of other tests have left their settings of glibc in the environment.
        env = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
        run = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert kept("yes") < 20 << 20
    if os.confstr("CS_GNU_LIBC_VERSION"):
        assert kept("no") > 100 << 20


# The verb


def test_the_verb(add_tomogram: Callable[..., Tomogram], folder: Path, otzi: Otzi) -> None:
    for name in ("ts_001", "ts_002"):
        tomo = add_tomogram(shells((10, 20, 20))[0], name)
    words = ("segment", tomo.collection.path, "--model", folder, "--name", "net")
    words = (*words, "--tile", 16, "--overlap", 4, "--device", "cpu", "--memory", "16GB")
    first = otzi(*words, "ts_002")
    assert (first.code, first.out) == (0, f"ts_002: {tomo.path('probs/net')}\n"), first.err
    every = json.loads(otzi(*words, "--json").out)
    assert {id_: result["made"] for id_, result in every.items()} == {
        "ts_001": True,
        "ts_002": False,
    }
    assert every["ts_002"]["path"] == str(tomo.path("probs/net"))
    again = otzi(*words, "--workers", 2)
    assert again.code == 0
    assert "ts_001 has this probs/net already" in again.err


def test_a_damaged_tomogram_does_not_stop_the_others(
    add_tomogram: Callable[..., Tomogram], folder: Path, otzi: Otzi
) -> None:
    for name in ("ts_001", "ts_002", "ts_003"):
        tomo = add_tomogram(shells((10, 20, 20))[0], name)
    shard = tomo.collection["ts_002"].path("raw") / "0" / "c" / "0" / "0" / "0"
    shard.unlink()
    words = ("segment", tomo.collection.path, "--model", folder, "--name", "net", "--tile", 16)
    run = otzi(*words, "--overlap", 4, "--device", "cpu", "--json")
    assert (run.code, "ts_002 is left out" in run.err, "is missing" in run.err) == (5, True, True)
    results = json.loads(run.out)
    assert [result["made"] for result in results.values()] == [True, False, True]
    assert str(shard) in results["ts_002"]["error"]
    assert [tomo.collection[name].has("probs/net") for name in results] == [True, False, True]


def test_wrong_words(tomo: Tomogram, tmp_path: Path, folder: Path, otzi: Otzi) -> None:
    others = make_model(tmp_path / "others", ("background", "membrane", "spikes"))
    words = ("segment", tomo.collection.path, "--name", "net", "--model")
    for extra, code, names in [
        ((others,), 78, "knows background, membrane, spikes, the collection has background, mem"),
        ((tmp_path / "nothing",), 2, "no model at"),
        ((tmp_path,), 78, "is no model folder"),
        ((folder, "ts_009"), 2, "no tomogram 'ts_009'"),
        ((folder, "--memory", "12MB"), 2, "--memory is 12.0 MB: allow more, or a smaller --tile"),
        ((folder, "--memory", "much"), 2, "'much' is no size"),
        ((folder, "--tile", 130), 2, "tile 130 does not fit the model"),
        ((folder, "--overlap", 65), 2, "overlap 65 must be 0 to 64"),
        ((folder, "--device", "tpu"), 2, "tpu"),
    ]:
        refused = otzi(*words, *extra)
        assert (refused.code, names in refused.err) == (code, True), refused.err
    assert otzi("segment", tomo.collection.path, "--model", folder).code == 2
    assert not tomo.has("probs/net")
