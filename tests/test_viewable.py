"""What Neuroglancer cannot show is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from otzi.errors import VerificationError
from otzi.viewable import is_viewable_dtype, viewing_problems
from otzi.viewable_images import image_problems
from otzi_pipelines.view_product import build_view

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram

AXES = [
    {"name": "c", "type": "channel"},
    *({"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"),
]


def _array(folder: Path, **changes: Any) -> dict[str, Any]:
    settings = {
        "shape": (5, 80, 80, 80),
        "chunks": (5, 16, 16, 16),
        "shards": (5, 80, 80, 80),
        "dtype": "uint8",
    }
    zarr.create_array(folder / "a", **settings | changes)
    document: dict[str, Any] = json.loads((folder / "a" / "zarr.json").read_text())
    return document


@pytest.mark.parametrize("shards", [(5, 80, 80, 80), None])
def test_a_sharded_and_a_plain_array_are_fine(tmp_path: Path, shards: Any) -> None:
    assert viewing_problems(_array(tmp_path, shards=shards), AXES) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dtype": "float16"}, "float16 voxels: store them as float32 or uint8"),
        ({"chunks": (1, 16, 16, 16)}, "5 channels in chunks of 1"),
        (
            {"shape": (5, 4, 4, 4000), "chunks": (5, 4, 4, 4000), "shards": None},
            "chunks of 4000 along x, at most 2048",
        ),
    ],
)
def test_each_problem_is_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    (found,) = viewing_problems(_array(tmp_path, **changes), AXES)
    assert problem in found


def test_units_and_codecs_are_looked_at(tmp_path: Path) -> None:
    array = _array(tmp_path)
    unitless = [*AXES[:3], {"name": "x", "type": "space"}]
    assert viewing_problems(array, unitless) == ["axis x has no unit: write it as angstrom"]
    inner = array["codecs"][0]["configuration"]["codecs"]
    inner.append({"name": "zfp", "configuration": {}})
    assert viewing_problems(array, AXES) == ["codec zfp: take zstd or blosc"]


def test_half_and_double_precision_are_not_shown() -> None:
    shown = {d for d in "bBhHiILefd" if is_viewable_dtype(np.dtype(d))}
    assert shown == set("bBhHiILf")


def test_what_cannot_be_shown_of_a_collection_is_named(
    add_tomogram: Callable[..., Tomogram], otzi: Otzi
) -> None:
    tomo = add_tomogram(np.random.default_rng(0).normal(0, 9, (8, 9, 10)).astype(np.float16))
    with tomo.write("probs/net", dtype="u1", recipe={}, channels=tomo.classes.names) as writer:
        writer[:, :, :, :] = np.zeros((3, 8, 9, 10), np.uint8)
    build_view(tomo, "net")
    run = otzi("doctor", "--viewable", tomo.collection.path, "--json")
    assert run.code == 0
    found = {c["what"]: (c["state"], c["found"]) for c in json.loads(run.out)["checks"]}
    assert found == {
        "ts_001/raw/1": ("warning", "float16 voxels"),
        "ts_001/view/1": ("ok", "can be shown"),
        "ts_001/view/1/overview": ("ok", "can be shown"),
        "ts_001/probs/net/1": ("warning", "3 channels in chunks of 1"),
    }
    alone = otzi("doctor", "--viewable", tomo.path("raw"))
    assert "store them as float32 or uint8" in alone.out
    assert otzi("doctor", "--viewable").code == 2
    assert otzi("doctor", "--viewable", tomo.folder / "none").code == 2


def test_no_image_is_a_problem_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"is no OME-Zarr 0\.5 image"):
        image_problems(tmp_path)
