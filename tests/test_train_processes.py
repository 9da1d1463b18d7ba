"""Processes that train together, as torchrun starts them: they learn what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from labelled import UNKNOWN, add_labels, shells
from otzi.networks.weights import load_card, load_model
from otzi.settings import load_settings
from otzi_pipelines.train.processes import ALONE, Team, is_first, together
from otzi_pipelines.train.settings import TrainSettings
from otzi_pipelines.train.training import train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram

SHAPE = (16, 48, 24)
TOML = """
steps = 6
batch = 4
accumulate = 2
crop_voxels = 16
grid_voxels = 8
learning_rate = 0.01
schedule = "constant"
ema_decay = 0.5
validate_every = 3
validation_crops = 3
checkpoint_every = 4

[network]
architecture = "unet"
width = 2
levels = 2
normalisation = "NORM"
"""


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    density, labels = shells(SHAPE)
    labels[:, 10:20] = UNKNOWN  # crops differ in how much is known of them
    tomo = add_tomogram(density)
    add_labels(tomo, labels)
    return tomo


def run(tomo: Tomogram, model: Path, config: Path, n_processes: int) -> Any:
    otzi = ("train", tomo.collection.path, "--labels", "net", "--model", model, "--config", config)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", n_processes)
    words = [*launcher, "-m", "otzi", *otzi, "--device", "cpu", "--threads", 1, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("normalisation", ["group", "batch", "volume"])
def test_two_processes_learn_what_one_does(
    tomo: Tomogram, tmp_path: Path, normalisation: str
) -> None:
    config = tmp_path / "train.toml"
    config.write_text(TOML.replace("NORM", normalisation))
    document = run(tomo, tmp_path / "2", config, 2)
    settings = load_settings(TrainSettings, config)
    options: dict[str, Any] = {"labels": "net", "device": "cpu", "threads": 1}
    train(tomo.collection, model=tmp_path / "1", settings=settings, **options)
    cards = {n: load_card(tmp_path / str(n)) for n in (1, 2)}
    assert document["metrics"] == cards[2].metrics
    assert cards[1].training == cards[2].training
    one, two = (load_model(tmp_path / str(n), device="cpu").network.state_dict() for n in (1, 2))
    curves = [[e["training_loss"] for e in cards[n].metrics["history"]] for n in (1, 2)]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=1e-4, msg=name)
    for key in ("macro_dice", "held_out_loss", "cross_entropy"):
        assert cards[1].metrics[key] == pytest.approx(cards[2].metrics[key], rel=1e-3)
    assert not (tmp_path / "2" / "checkpoint").exists()
    assert list(tmp_path.rglob("*.partial")) == []


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert is_first()
    with together(torch.device("cpu")) as (team, device):
        assert (team, device) == (ALONE, torch.device("cpu"))
    value = torch.ones(3)
    ALONE.add([value])
    assert value.tolist() == [1, 1, 1]
    assert ALONE.gather("said") == ["said"]


def test_each_item_is_one_process_s() -> None:
    items = range(11)
    shares = [Team(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(items)


def test_a_batch_that_cannot_be_shared_is_refused(tomo: Tomogram, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text(TOML.replace("NORM", "group").replace("batch = 4", "batch = 3"))
    with pytest.raises(AssertionError, match="batch = 3 must be a multiple of the 2 processes"):
        run(tomo, tmp_path / "model", config, 2)
    assert not (tmp_path / "model").exists()


def test_whoever_meets_bad_data_names_it_and_nobody_waits(
    add_tomogram: Callable[..., Tomogram], tmp_path: Path
) -> None:
    density, labels = shells(SHAPE)
    density = density.astype(np.float32)
    density[:, 20:22] = np.nan
    tomo = add_tomogram(density)
    add_labels(tomo, labels)
    config = tmp_path / "train.toml"
    config.write_text(TOML.replace("NORM", "batch"))
    with pytest.raises(AssertionError, match=r"the density of ts_001, z 0 to 16, .* is not finite"):
        run(tomo, tmp_path / "model", config, 2)
    assert not (tmp_path / "model" / "model.json").exists()
