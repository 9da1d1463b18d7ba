"""Channels of strokes that were computed once are not computed again, and are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.sample import sample
from otzi.strokes import Stroke, Strokes, write_strokes
from otzi_pipelines.label import samples as module
from otzi_pipelines.label.pseudolabel import pseudolabel
from otzi_pipelines.label.stroke_import import import_strokes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram

SHAPE = (20, 70, 75)
BANK = FeatureBank(scales=(0.7, 1.6))
STROKES = (
    Stroke("background", 1.0, ((10.0, 5.0, 5.0), (10.0, 5.0, 70.0))),
    Stroke("membrane", 1.0, ((10.0, 35.0, 5.0), (10.0, 35.0, 70.0))),
)
MORE = (
    Stroke("lumen", 1.0, ((10.0, 5.0, 60.0), (10.0, 9.0, 60.0))),
    Stroke("membrane", 0.0, ((3.0, 66.0, 70.0),)),
)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram], tmp_path: Path) -> Tomogram:
    tomo = add_tomogram(np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.float32))
    draw(tomo, tmp_path, STROKES)
    return tomo


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the list of how many voxels are computed at a time."""
    counts: list[int] = []

    def counted(bank: Any, read: Any, voxels: Any, **options: Any) -> Any:
        counts.append(len(voxels))
        return sample(bank, read, voxels, **options)

    monkeypatch.setattr(module, "sample", counted)
    return counts


def draw(tomo: Tomogram, folder: Path, strokes: tuple[Stroke, ...], append: bool = False) -> int:
    """Import strokes, and give how many voxels there are now."""
    write_strokes(folder / "s.json", Strokes("ts_001", tomo.classes.names, strokes))
    import_strokes(tomo, folder / "s.json", append=append)
    return sum(tomo.attributes("strokes")["n_voxels"].values())


def label(tomo: Tomogram, name: str = "forest", bank: FeatureBank = BANK, **options: Any) -> bytes:
    """Label, and give the content of the forest and of the kept channels."""
    pseudolabel(tomo, name, bank=bank, n_trees=3, workers=1, **options)
    files = ("forest/forest.npz", "samples.npz")
    return b"".join((tomo.path(f"labels/{name}") / file).read_bytes() for file in files)


def test_more_strokes_compute_new_voxels_only(
    tomo: Tomogram, computed: list[int], tmp_path: Path
) -> None:
    n_before = tomo.attributes("strokes")["n_voxels"]
    label(tomo)
    n_after = draw(tomo, tmp_path, MORE, append=True)
    again = label(tomo)
    assert computed == [sum(n_before.values()), n_after - sum(n_before.values())]
    assert 0 < computed[1] < computed[0] / 4
    assert label(tomo, "fresh") == again
    assert computed[2] == n_after


def test_fewer_strokes_compute_nothing(tomo: Tomogram, computed: list[int], tmp_path: Path) -> None:
    draw(tomo, tmp_path, MORE, append=True)
    label(tomo)
    n_fewer = draw(tomo, tmp_path, STROKES)
    again = label(tomo)
    assert computed[1] == 0
    assert label(tomo, "fresh") == again
    assert computed[2] == n_fewer


def test_another_density_bank_or_otzi_computes_all(
    tomo: Tomogram,
    computed: list[int],
    add_tomogram: Callable[..., Tomogram],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n = sum(tomo.attributes("strokes")["n_voxels"].values())
    label(tomo)
    label(tomo, seed=1)
    assert computed == [n, 0]
    label(tomo, bank=FeatureBank(scales=(1.6,)))
    assert computed[2:] == [n]
    monkeypatch.setattr("otzi.__version__", "0.0.1")
    label(tomo, bank=FeatureBank(scales=(1.6,)), seed=2)
    assert computed[3:] == [n]
    with tomo.write("raw", dtype="f4", recipe={"made": "again"}) as writer:
        writer[:, :, :] = np.random.default_rng(7).normal(0, 9, SHAPE).astype(np.float32)
    label(tomo, bank=FeatureBank(scales=(1.6,)), seed=2)
    assert computed[4:] == [n]


def test_a_damaged_copy_costs_time_only(tomo: Tomogram, computed: list[int]) -> None:
    whole = label(tomo)
    file = tomo.path("labels/forest") / "samples.npz"
    file.write_bytes(file.read_bytes()[:-100])
    assert label(tomo, seed=1)[-100:] == whole[-100:]
    assert computed[0] == computed[1]


def test_what_is_large_is_not_kept(
    tomo: Tomogram, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    pseudolabel(tomo, "forest", bank=BANK, n_trees=3, workers=1)
    assert not (tomo.path("labels/forest") / "samples.npz").exists()
    pseudolabel(tomo, "forest", bank=BANK, n_trees=3, seed=1, workers=1)
    assert computed[0] == computed[1]
