"""The verbs that keep house: what they print, and with which code they end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otzi import doctor, filesystem
from otzi.ledger import audit as audit_module
from otzi.ledger.sqlite import ledger_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram

VOLUME = np.random.default_rng(6).normal(0, 99, (66, 70, 9)).astype(np.int16)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram], monkeypatch: pytest.MonkeyPatch) -> Tomogram:
    monkeypatch.setattr(audit_module, "_ROW_SECONDS", 0)
    return add_tomogram(VOLUME)


def _interrupt(tomo: Tomogram) -> None:
    def interrupted() -> None:
        with tomo.write("view", dtype="uint8", recipe={}) as writer:
            writer[0:64, 0:64, 0:9] = np.ones((64, 64, 9), np.uint8)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def _spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def test_verify_says_what_it_read(tomo: Tomogram, otzi: Otzi) -> None:
    run = otzi("verify", tomo.collection.path)
    assert run.code == 0
    n_files = len(tomo.manifest("raw"))
    assert run.out.startswith(f"1 products, {n_files} files, ")
    assert run.out.endswith(": 0 damaged, 0 mended\n")
    assert otzi("verify", tomo.collection.path, "ts_001", "--fast").code == 0
    assert otzi("verify", tomo.collection.path, "ts_002").code == 2
    assert otzi("verify", tomo.collection.path.parent).code == 78
    assert otzi("verify", tomo.collection.path / "nowhere").code == 2


def test_verify_names_mends_and_says_what_is_left(tomo: Tomogram, otzi: Otzi) -> None:
    path, inside = tomo.collection.path, "tomograms/ts_001/raw/1"
    for name in ("1/c/0/0/0", "zarr.json"):
        _spoil(path / inside / name)
    run = otzi("verify", path)
    assert run.code == 4
    assert f"damaged  {inside}/1/c/0/0/0 has CRC-32C" in run.out
    assert f"mend it: otzi verify {path} --repair" in run.err
    run = otzi("verify", path, "--repair")
    assert run.code == 0
    assert f"mended   {inside}/1/c/0/0/0 has CRC-32C" in run.out
    assert run.out.endswith(": 2 damaged, 2 mended\n")
    assert "from level 0" in run.err
    assert "from the catalog" in run.err
    _spoil(path / inside / "0/c/0/0/0")
    document = json.loads(otzi("verify", path, "--repair", "--json").out)
    assert document["left"] == document["findings"]
    (left,) = document["left"]
    assert left["path"] == f"{inside}/0/c/0/0/0"
    assert (left["tomogram"], left["product"]) == ("ts_001", "raw")


def test_verify_says_which_verb_makes_it_again(tomo: Tomogram, otzi: Otzi) -> None:
    labels = np.ones(VOLUME.shape, np.uint8)
    with tomo.write("labels/hand", dtype="uint8", recipe={}, downsample="mode") as writer:
        writer[0:66, 0:70, 0:9] = labels
    _spoil(tomo.path("labels/hand") / "0/c/0/0/0")
    run = otzi("verify", tomo.collection.path, "--repair")
    assert run.code == 4
    assert f"remove {tomo.folder}/labels/hand, then otzi pseudolabel" in run.err


def test_verify_mends_a_collection_that_cannot_be_opened(tomo: Tomogram, otzi: Otzi) -> None:
    path = tomo.collection.path
    whole = (path / "zarr.json").read_bytes()
    (path / "zarr.json").write_bytes(whole.replace(b'"otzi"', b'"otzj"'))
    assert otzi("ls", path).code == 78
    assert otzi("verify", path).code == 4
    assert otzi("verify", path, "--repair").code == 0
    assert (path / "zarr.json").read_bytes() == whole


def test_verify_does_not_undo_what_may_be_meant(tomo: Tomogram, otzi: Otzi) -> None:
    path = tomo.collection.path
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace("lumen", "lymen"))
    run = otzi("verify", path, "--repair")
    assert run.code == 4
    assert f"if zarr.json was changed on purpose: otzi ledger rebuild {path}" in run.err
    assert otzi("ledger", "rebuild", path).code == 0
    assert otzi("verify", path).code == 0


def test_gc_prints_what_goes_and_how_much(tomo: Tomogram, otzi: Otzi) -> None:
    path = tomo.collection.path
    assert otzi("gc", path).out == "0 B freed\n"
    _interrupt(tomo)
    looked = otzi("gc", path, "--dry-run")
    assert looked.code == 0
    assert "interrupted work" in looked.out
    assert looked.out.endswith(" would be freed\n")
    document = json.loads(otzi("gc", path, "--json").out)
    assert document["removed"]
    assert document["held"] == []
    assert {item["path"] for item in document["litter"]} == {
        ".staging/tomograms.ts_001.view",
        ".staging/tomograms.ts_001.view.journal",
    }
    assert otzi("gc", path).out == "0 B freed\n"


def test_ledger_exports_every_row(tomo: Tomogram, otzi: Otzi) -> None:
    path = tomo.collection.path
    rows = [json.loads(line) for line in otzi("ledger", "export", path).out.splitlines()]
    assert rows == json.loads(otzi("ledger", "export", path, "--json").out)["rows"]
    files = {row["path"]: row["n_bytes"] for row in rows if row["table"] == "file"}
    assert files == {name: n_bytes for name, (n_bytes, _) in tomo.manifest("raw").items()}
    ledger_path(path).unlink()
    run = otzi("ledger", "export", path)
    assert run.code == 2
    assert "ledger rebuild" in run.err
    assert otzi("ledger", "shred", path).code == 2


def test_status_shows_what_is_there_and_what_is_not(tomo: Tomogram, otzi: Otzi) -> None:
    path = tomo.collection.path
    assert otzi("status", path).out.endswith(
        "1 published, 0 running, 0 interrupted, 0 quarantined\n"
    )
    _interrupt(tomo)
    report: dict[str, Any] = {
        "id": "ts_9", "source": "/data/ts_9.mrc", "n_bytes": 7, "reason": "too short", "time": "now"
    }  # fmt: skip
    folder = path / "quarantine"
    folder.mkdir()
    (folder / "ts_9.0a.json").write_text(json.dumps(report))
    (folder / "zz.json").write_text("{")
    document = json.loads(otzi("status", path, "--json").out)
    assert document["tomograms"] == {"ts_001": ["raw"]}
    assert document["quarantined"][0] == report
    assert document["quarantined"][1]["id"] == "zz"
    (work,) = document["work"]
    assert (work["tomogram"], work["product"], work["state"]) == ("ts_001", "view", "interrupted")
    assert (work["shards_done"], work["shards"]) == (0, 2)
    with tomo.stage("strokes", recipe={}):
        text = otzi("status", path).out
    assert "running      ts_001 strokes" in text
    assert "interrupted  ts_001 view: 0 of 2 shards" in text
    assert "quarantined  ts_9: too short" in text
    assert text.endswith("1 published, 1 running, 1 interrupted, 2 quarantined\n")


def test_doctor_finds_this_machine_usable(tomo: Tomogram, otzi: Otzi) -> None:
    run = otzi("doctor", tomo.collection.path)
    assert run.code == 0
    assert "ok       Python" in run.out
    found = {check["what"]: check for check in json.loads(otzi("doctor", "--json").out)["checks"]}
    assert {
        "zarr",
        "cores",
        "free disk",
        "file system",
        "SQLite",
        "numba cache",
        "CUDA",
        "drawing",
    } <= set(found)
    assert all(check["remedy"] for check in found.values() if check["state"] != "ok")


def test_doctor_warns_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, otzi: Otzi
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 0:1 / / rw shared:1 - nfs4 server:/x rw\n")
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)
    monkeypatch.setattr(doctor, "_LEAST_DISK_BYTES", 10**18)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    run = otzi("doctor", tmp_path)
    assert run.code == 0
    for words in ("warning  free disk", "warning  catalog", "OTZI_LEDGER", "warning  C++ compiler"):
        assert words in run.out


def test_doctor_fails_where_otzi_cannot_work(monkeypatch: pytest.MonkeyPatch, otzi: Otzi) -> None:
    monkeypatch.setattr(doctor, "_LIBRARIES", ("zarr", "no-such-library"))
    monkeypatch.setattr(doctor, "_OLDEST_SQLITE", (99, 0, 0))
    run = otzi("doctor")
    assert run.code == 78
    assert "error    no-such-library" in run.out
    assert "error    SQLite" in run.out
