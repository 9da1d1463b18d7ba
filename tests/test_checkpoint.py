"""Checkpoints: what is written comes back, and damage is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from otzi.errors import ModelError, NotFoundError
from otzi_pipelines.train.checkpoint import Checkpoint

if TYPE_CHECKING:
    from pathlib import Path

CHECKPOINT = Checkpoint(
    step=7,
    notes={"losses": [0.1 + 0.2, 1e-30], "made": {"seed": 0}},
    network={"head.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0))},
    averaged={"head.weight": torch.ones(3, 4)},
    optimiser={"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1e-3}]},
    scaler={"scale": 65536.0},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    CHECKPOINT.write(tmp_path / "model" / "checkpoint")
    return tmp_path / "model" / "checkpoint"


def test_what_is_written_comes_back(path: Path) -> None:
    found = Checkpoint.read(path)
    assert (found.step, found.notes) == (CHECKPOINT.step, CHECKPOINT.notes)
    assert torch.equal(found.network["head.weight"], CHECKPOINT.network["head.weight"])
    assert torch.equal(found.averaged["head.weight"], torch.ones(3, 4))
    assert found.optimiser["state"][0]["step"] == 7
    assert found.scaler == CHECKPOINT.scaler
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("place", [0, 40, -1, -200])
def test_a_flipped_bit_is_noticed(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"checkpoint .*model/checkpoint is damaged .* remove it"):
        Checkpoint.read(path)


@pytest.mark.parametrize("kept", [0, 20, 500])
def test_a_cut_file_is_noticed(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="damaged"):
        Checkpoint.read(path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not there"):
        Checkpoint.read(tmp_path / "checkpoint")
