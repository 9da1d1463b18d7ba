"""Files with the same bytes, in one run and in shards of their own: one tomogram, the first."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mrc_files import mrc_bytes
from otzi.collection import open_collection
from otzi.ledger.sqlite import read_catalog
from otzi.ledger.stages import read_stages
from otzi_pipelines.run.coordinator import run_collection
from otzi_pipelines.run.pipeline import read_pipeline
from otzi_pipelines.run.twins import first_twins
from otzi_pipelines.run.volume import Shard, find_volumes

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Otzi

N_SHARDS = 2
STAGES = {"stage": [{"stage": "ingest", "sources": ["incoming"]}, {"stage": "view"}]}


def _write(folder: Path, name: str, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    volume = np.random.default_rng(seed).integers(-90, 90, (40, 50, 60)).astype(np.int8)
    (folder / f"{name}.mrc").write_bytes(mrc_bytes(volume))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give one with a pair of the same bytes, whose ids alone are of different shards."""
    shards = {name: [Shard(n, 2).has(name) for n in (1, 2)].index(True) for name in "abde"}
    assert shards["a"] != shards["d"]
    for name, seed in (("a", 1), ("d", 1), ("b", 2), ("e", 3)):
        _write(tmp_path / "incoming", name, seed)
    return tmp_path


def test_files_that_look_the_same_are_known_by_the_first(folder: Path) -> None:
    incoming = folder / "incoming"
    sources = {name: incoming / f"{name}.mrc" for name in "abde"} | {"gone": incoming / "gone.mrc"}
    firsts = first_twins(["a", "b", "d", "e", "gone", "no_file"], sources)
    assert firsts == {
        "a": "a", "b": "b", "d": "a", "e": "e", "gone": "gone", "no_file": "no_file",
    }  # fmt: skip
    longer = (incoming / "d.mrc").read_bytes() + b"\0"
    (incoming / "d.mrc").write_bytes(longer)
    assert first_twins("ad", sources)["d"] == "d"


def test_every_file_is_in_one_shard_and_twins_are_in_the_same(folder: Path) -> None:
    stages = read_pipeline(STAGES, folder / "p.toml")
    assert stages.ingest is not None
    sources = stages.ingest.files()
    shares = [
        [volume.id for volume in find_volumes(None, sources, shard=Shard(n, N_SHARDS))]
        for n in range(1, N_SHARDS + 1)
    ]
    assert sorted(id_ for share in shares for id_ in share) == list("abde")
    assert {"a", "d"} in [set(share) & {"a", "d"} for share in shares]


def test_shards_at_the_same_time_end_as_one_run_does(
    folder: Path, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = read_pipeline(STAGES, folder / "p.toml")
    assert run_collection(folder / "one", stages).exit_code == 0
    assert open_collection(folder / "one").ids == ("a", "b", "e")
    codes: list[int] = []
    together = threading.Barrier(N_SHARDS)

    def share(number: int) -> None:
        together.wait()
        outcome = run_collection(folder / "c", stages, shard=Shard(number, N_SHARDS))
        codes.append(outcome.exit_code)

    run_collection(folder / "c", stages, only=["none*"])  # the collection itself
    threads = [threading.Thread(target=share, args=(n,)) for n in range(1, N_SHARDS + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * N_SHARDS
    one, shared = open_collection(folder / "one"), open_collection(folder / "c")
    assert shared.ids == one.ids
    for tomo in one:
        for product in ("raw", "view"):
            assert shared[tomo.id].digest(product) == tomo.digest(product)


def test_ledgers_of_shards_are_merged_by_a_rebuild(
    folder: Path, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = read_pipeline(STAGES, folder / "p.toml")
    for n in range(1, N_SHARDS + 1):
        monkeypatch.setenv("OTZI_LEDGER", str(folder / f"node_{n}"))
        (folder / f"node_{n}").mkdir()
        assert run_collection(folder / "c", stages, shard=Shard(n, N_SHARDS)).exit_code == 0
    monkeypatch.delenv("OTZI_LEDGER")
    path = folder / "c"
    assert otzi("ledger", "rebuild", path).code == 0
    before = {tomo.id: [tomo.path(p) for p in tomo.products] for tomo in open_collection(path)}
    with read_catalog(path) as catalog:
        assert catalog is not None
        assert set(catalog.digests()) == {(id_, p) for id_ in "abe" for p in ("raw", "view")}
    assert run_collection(path, stages).exit_code == 0
    assert {
        tomo.id: [tomo.path(p) for p in tomo.products] for tomo in open_collection(path)
    } == before
    states = {(row.tomogram, row.stage): row.state for row in read_stages(path)}
    assert states == {
        **{(id_, stage): "committed" for id_ in "abe" for stage in ("ingest", "view")},
        ("d", "ingest"): "committed",
    }
    assert otzi("verify", path).code == 0
