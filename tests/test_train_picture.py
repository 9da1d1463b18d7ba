"""Pictures and curves of validations."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelled import one_hot
from otzi.classes import ClassTable
from otzi_pipelines.train.board import board
from otzi_pipelines.train.picture import draw_rows, draw_validation

if TYPE_CHECKING:
    from pathlib import Path

TABLE = ClassTable.named(("background", "membrane"), {"membrane": "#ff8000"})
COLOURS = np.array([[10, 20, 30], [200, 100, 0]], np.uint8)


def row() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A plane of 64 × 128: black to white; unknown, background and membrane; half of each."""
    density = np.linspace(-4, 4, 128, dtype=np.float32) * np.ones((64, 1), np.float32)
    labels = np.full((64, 128), 255, np.uint8)
    labels[:, 40:] = 0
    labels[:, 90:] = 1
    target = one_hot(labels[None], 2)[:, 0]
    return density, target, np.full((2, 64, 128), 0.5, np.float32)


def test_panels_are_density_target_and_prediction() -> None:
    picture = draw_rows([row(), row()], COLOURS)
    assert (picture.shape, picture.dtype) == ((2 * 128 + 4, 3 * 256 + 8, 3), np.uint8)
    density, target, prediction = (picture[:128, x : x + 256] for x in (0, 260, 520))
    assert (density[..., 0] == density[..., 2]).all()
    assert (density[0, 0], density[0, -1]) == (pytest.approx([0] * 3), pytest.approx([255] * 3))
    assert (np.diff(density[0, :, 0].astype(int)) >= 0).all()
    assert target[5, 10].tolist() == [64, 64, 64]
    assert target[5, 100].tolist() == [10, 20, 30]
    assert target[5, 200].tolist() == [200, 100, 0]
    assert (prediction == [105, 60, 15]).all()
    np.testing.assert_array_equal(picture[:128], picture[132:])


def test_classes_have_the_colours_of_the_table_and_their_names() -> None:
    image = draw_validation([row()], ("background", "membrane"), TABLE)
    pixels = np.asarray(image)
    assert pixels.shape == (128 + 40, 3 * 256 + 8, 3)
    assert (pixels[20:148] == [255, 128, 0]).all(-1).any()
    assert (pixels[148:] == [255, 128, 0]).all(-1).any()
    assert (pixels[:20] != 255).any()
    others = draw_validation([row()], ("background", "foreground"), TABLE)
    assert others.size == image.size


def shown(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_curves_and_slices_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    picture = np.asarray(draw_validation([row()], ("background", "membrane"), TABLE))
    with board(tmp_path / "a", 1) as first:
        for step in (10, 20, 30):
            first.show(step, {"training_loss": step / 10, "macro_dice": None}, picture)
    # A run that goes on after step 15 shows 20 and 30 anew.
    with board(tmp_path / "a", 16) as second:
        second.show(20, {"training_loss": 7.0}, picture)
    events = shown(tmp_path / "a")
    assert [(e.step, e.value) for e in events.Scalars("training_loss")] == [(10, 1.0), (20, 7.0)]
    images = events.Images("density, target, prediction")
    assert [(e.width, e.height) for e in images] == [picture.shape[1::-1]] * 2
    assert "macro_dice" not in events.Tags()["scalars"]


def test_without_tensorboard_nothing_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with board(tmp_path / "curves", 1) as nothing:
        nothing.show(1, {"training_loss": 1.0}, np.zeros((4, 4, 3), np.uint8))
    assert not (tmp_path / "curves").exists()
