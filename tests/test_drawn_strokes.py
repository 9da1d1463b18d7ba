"""What is drawn on a tomogram that has strokes already, and on one that has none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otzi.errors import StrokesError
from otzi_pipelines.label.stroke_import import import_strokes
from otzi_viewers.strokes.drawn import DrawnStrokes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram

SHAPE = (10, 20, 30)
WHOLE = (slice(None),) * 3


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(np.zeros(SHAPE, np.float32))


def document(*strokes: tuple[str, list[float]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "tomogram": "ts_001",
        "classes": ["background", "membrane", "lumen"],
        "strokes": [{"class": c, "radius": 1.0, "points": [p]} for c, p in strokes],
    }


A, B, C = ("background", [2, 3, 4]), ("membrane", [2, 9, 9]), ("lumen", [5, 9, 20])


def names(drawn: DrawnStrokes) -> list[str]:
    return [stroke.class_name for stroke in drawn.strokes.strokes]


def _import(tomo: Tomogram, file: Path, *strokes: Any, append: bool = False) -> None:
    file.write_text(json.dumps(document(*strokes)))
    import_strokes(tomo, file, append=append)


def test_looking_writes_nothing(tomo: Tomogram) -> None:
    drawn = DrawnStrokes(tomo, "ada")
    assert names(drawn) == []
    assert not (tomo.folder / "strokes").exists()
    assert not drawn.overlay[WHOLE].any()


def test_imported_polylines_can_be_taken_back_like_drawn_ones(
    tomo: Tomogram, tmp_path: Path
) -> None:
    _import(tomo, tmp_path / "a.json", A, B)
    drawn = DrawnStrokes(tomo, "ada")
    assert names(drawn) == ["background", "membrane"]
    assert set(np.unique(drawn.overlay[WHOLE])) == {0, 1, 2}
    drawn.draw(document(C))
    assert names(DrawnStrokes(tomo, "ada")) == ["background", "membrane", "lumen"]
    assert drawn.undo()
    assert drawn.undo()
    assert names(drawn) == names(DrawnStrokes(tomo, "ada")) == ["background"]
    assert set(np.unique(drawn.overlay[WHOLE])) == {0, 1}
    assert drawn.undo()
    assert not drawn.undo()


def test_what_was_published_of_the_drawn_comes_once(tomo: Tomogram) -> None:
    drawn = DrawnStrokes(tomo, "ada")
    drawn.draw(document(A, B))
    import_strokes(tomo, drawn.write())
    assert tomo.attributes("strokes")["n_voxels"] == {"background": 7, "membrane": 7, "lumen": 0}
    again = DrawnStrokes(tomo, "ada")
    assert names(again) == ["background", "membrane"]
    assert not again.is_on_volume
    again.undo()
    import_strokes(tomo, again.write())
    assert tomo.attributes("strokes")["n_voxels"]["membrane"] == 0
    assert names(DrawnStrokes(tomo, "ada")) == ["background"]


def test_what_others_import_is_joined_with_what_was_drawn(tomo: Tomogram, tmp_path: Path) -> None:
    DrawnStrokes(tomo, "ada").draw(document(A))
    _import(tomo, tmp_path / "b.json", B)
    drawn = DrawnStrokes(tomo, "ada")
    assert names(drawn) == ["membrane", "background"]
    drawn.draw(document(C))
    assert names(DrawnStrokes(tomo, "ada")) == ["membrane", "background", "lumen"]


def test_voxels_of_a_label_volume_lie_below_and_stay(tomo: Tomogram, tmp_path: Path) -> None:
    import zarr

    labels = np.zeros(SHAPE, np.uint8)
    labels[3] = 2
    zarr.save_array(tmp_path / "labels.zarr", labels)
    import_strokes(tomo, tmp_path / "labels.zarr")
    drawn = DrawnStrokes(tomo, "ada")
    assert drawn.is_on_volume
    assert names(drawn) == []
    drawn.draw(document(("lumen", [3, 5, 5])))
    shown = drawn.overlay[WHOLE]
    assert (shown[3, 5, 5], shown[3, 0, 0], shown[5, 0, 0]) == (3, 2, 0)
    drawn.undo()
    np.testing.assert_array_equal(drawn.overlay[WHOLE], labels)


def test_strokes_that_do_not_belong_here_change_nothing(tomo: Tomogram) -> None:
    drawn = DrawnStrokes(tomo, "ada")
    for wrong in (document(("ice", [1, 1, 1])), document(("lumen", [99, 1, 1])), {"schema": 1}):
        with pytest.raises(StrokesError):
            drawn.draw(wrong)
    with pytest.raises(StrokesError):
        drawn.draw(document(A) | {"tomogram": "other"})
    assert names(drawn) == []
    assert not (tomo.folder / "strokes").exists()


def test_the_product_is_whole_beside_what_is_drawn(tomo: Tomogram, otzi: Any) -> None:
    drawn = DrawnStrokes(tomo, "ada")
    drawn.draw(document(A))
    for _ in range(2):
        run = otzi("verify", tomo.collection.path)
        assert run.code == 0, run.err
        import_strokes(tomo, drawn.write())
    assert otzi("gc", tomo.collection.path).code == 0
    assert names(DrawnStrokes(tomo, "ada")) == ["background"]
