"""Trainings that are killed, starved or fed what is no number: the last good state stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelled import add_labels, one_hot, shells
from otzi.errors import ModelError
from otzi.networks.weights import load_card
from otzi_pipelines.train.checkpoint import Checkpoint
from otzi_pipelines.train.settings import TrainSettings
from otzi_pipelines.train.training import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

pytestmark = pytest.mark.faults

HARNESS = Path(__file__).with_name("train_harness.py")
SHAPE = (16, 48, 24)
KILLED_AT = (1, 4, 5, 3)
"""Steps, counted from where a run goes on."""
SETTINGS: dict[str, Any] = {
    "steps": 24,
    "batch": 2,
    "accumulate": 2,
    "crop_voxels": 16,
    "grid_voxels": 8,
    "width": 2,
    "levels": 2,
    "schedule": "plateau",
    "plateau_validations": 1,
    "stop_validations": 4,
    "minimum_gain": 9.0,
    "learning_rate": 0.03,
    "ema_decay": 0.5,
    "validate_every": 4,
    "validation_crops": 2,
    "checkpoint_every": 3,
    "augmentation": {"noise": 0.3, "blur_voxels": 0.5, "rotation_degrees": 5.0},
}


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    density, labels = shells(SHAPE)
    tomo = add_tomogram(density)
    add_labels(tomo, labels)
    return tomo


def files(model: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(model)): path.read_bytes()
        for path in model.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }


def test_killed_over_and_over_it_ends_in_the_same_bits_and_curve(
    tomo: Tomogram, tmp_path: Path
) -> None:
    """Averaged weights, plateau, augmentation and accumulation are all gone on with."""
    words = (HARNESS, tomo.collection.path, tmp_path, json.dumps(SETTINGS), *KILLED_AT)
    run = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert (report["whole"], report["broken"]) == (0, 0), run.stderr
    for row, step in zip(report["killed"], KILLED_AT, strict=True):
        assert (row["code"], row["made"]) == (-signal.SIGKILL, False), row
        assert row["taken"] >= step
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    found = files(broken)
    assert {name for name in found if "partial" not in name} == set(files(whole))
    for name, content in files(whole).items():
        assert found[name] == content, name
    # After the first validation nothing gains as much: the rate falls four times, then it ends.
    best = load_card(broken)
    rates = [0.03 / 2 ** max(0, i - 1) for i in range(len(best.metrics["history"]))]
    assert [entry["learning_rate"] for entry in best.metrics["history"]] == pytest.approx(rates)
    assert best == load_card(broken / "best")
    assert max(p.name for p in (broken / "pictures").iterdir()) == "step_000020.png"


@pytest.mark.parametrize("where", ["density", "labels"])
def test_what_is_no_number_is_named_and_the_last_state_kept(
    tomo: Tomogram, tmp_path: Path, where: str
) -> None:
    density, labels = shells(SHAPE)
    values, soft = density.astype(np.float32), one_hot(labels)
    # In few crops, so that the first steps are sound.
    (values if where == "density" else soft[0])[15, 33:36, 20:] = np.nan
    statistics = tomo.attributes("raw")["statistics"]
    with tomo.write("raw", dtype="float32", shape=SHAPE, recipe={"made": "again"}) as writer:
        writer[0:16, 0:48, 0:24] = values
        writer.attributes["statistics"] = statistics
    add_labels(tomo, soft)
    fields = SETTINGS | {"augmentation": TrainSettings().augmentation, "steps": 400, "seed": 2}
    fields |= {"stop_validations": 0, "checkpoint_every": 1, "validate_every": 400}
    model = tmp_path / "model"
    with pytest.raises(
        ModelError, match=rf"the {where} of ts_001, z \d+ to \d+, y .* (is|are) not finite: "
    ):
        train(
            tomo.collection,
            labels="net",
            model=model,
            settings=TrainSettings(**fields),
            device="cpu",
            threads=1,
        )
    checkpoint = Checkpoint.read(model / "checkpoint")
    assert checkpoint.step > 0
    assert all(np.isfinite(t.numpy()).all() for t in checkpoint.network.values())
    assert not (model / "model.json").exists()


def test_a_full_disk_leaves_the_checkpoint_before(
    tomo: Tomogram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import otzi_pipelines.train.checkpoint as module
    from otzi.errors import OutOfSpace

    model, writes = tmp_path / "model", []
    whole = module.writing_whole

    def full(path: Path) -> Any:
        writes.append(path)
        if len(writes) == 3:
            raise OSError(28, "No space left on device")
        return whole(path)

    monkeypatch.setattr(module, "writing_whole", full)
    fields = SETTINGS | {"augmentation": TrainSettings().augmentation}
    options: dict[str, Any] = {"labels": "net", "device": "cpu", "threads": 1}
    settings = TrainSettings(**fields)
    with pytest.raises(OutOfSpace, match="no space left while writing"):
        train(tomo.collection, model=model, settings=settings, **options)
    assert Checkpoint.read(model / "checkpoint").step == 6
    resumed = train(tomo.collection, model=model, settings=settings, **options)
    monkeypatch.undo()
    assert resumed == train(tomo.collection, model=tmp_path / "whole", settings=settings, **options)
