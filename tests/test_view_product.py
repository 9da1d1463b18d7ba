"""The view product: what is stored is what the whole arrays give, in chunks that can be shown."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import zarr

from otzi.console import Console
from otzi.errors import ConfigurationError, NotFoundError, UsageError
from otzi.events import Advanced, Event
from otzi.store.reader import LevelArray
from otzi_pipelines import view_product
from otzi_pipelines.view_product import build_view, overview_level
from otzi_viewers.render.density import normalised_density
from otzi_viewers.render.scene import Density

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SHAPE = (20, 150, 140)
NAMES = ("background", "membrane", "lumen")


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(5, 400, SHAPE).astype(np.int16)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram], volume: np.ndarray) -> Tomogram:
    return add_tomogram(volume)


def _codes(seed: int = 1, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    values = np.random.default_rng(seed).random((3, *shape)).astype(np.float32)
    return values / values.sum(axis=0)


def _segment(
    tomo: Tomogram, probs: np.ndarray, names: tuple[str, ...] = NAMES, **settings: Any
) -> None:
    with tomo.write(
        "probs/net", dtype=probs.dtype, channels=names, recipe={}, parents=("raw",), **settings
    ) as writer:
        blocks = (len(names), 64, 64, 64)
        da.store(da.from_array(probs, chunks=blocks), writer, lock=False)


def _set_ramps(tomo: Tomogram, low: float) -> None:
    with tomo.stage("ramps/net", recipe={}, parents=("probs/net",)) as staging:
        staging.attributes["ramps"] = {name: {"low": low} for name in NAMES}


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_channels_are_density_and_classes(tomo: Tomogram, volume: np.ndarray, dtype: str) -> None:
    probs = _codes()
    codes = np.rint(probs * 255).astype(np.uint8)
    _segment(tomo, codes if dtype == "uint8" else probs.astype(dtype))
    assert build_view(tomo, "net")
    assert tomo.image("view").channels == ("density", *NAMES)
    view = tomo.array("view")[...]
    # One meaning for both pictures: the renderer's density, but for the rounding of its window.
    expected = normalised_density(volume, Density(), smoothing=1) * 255
    assert np.abs(view[0] - expected).max() <= 0.51
    tolerance = 0 if dtype == "uint8" else 1
    assert np.abs(view[1:].astype(int) - codes).max() <= tolerance


def test_the_recipe_has_the_numbers_of_the_renderer(tomo: Tomogram) -> None:
    build_view(tomo)
    density, made = Density(), tomo.attributes("view")["recipe"]["density"]
    assert made["inverted"] == density.invert
    assert tuple(made["percentiles"]) == density.window


def test_quantisation_gives_back_the_values(tomo: Tomogram, volume: np.ndarray) -> None:
    build_view(tomo)
    q = tomo.attributes("view")["quantisation"]["density"]
    values = tomo.array("view")[0] * q["scale"] + q["offset"]
    smooth = view_product.LowPass(tomo)(view_product.Box.whole(SHAPE))
    low, high = sorted((q["offset"], q["offset"] + 255 * q["scale"]))
    assert np.abs(values - np.clip(smooth, low, high)).max() <= abs(q["scale"]) * 0.51
    assert low == pytest.approx(np.percentile(smooth, 0.5), abs=0.1)


def test_classes_are_in_the_order_of_the_table(tomo: Tomogram) -> None:
    codes = np.rint(_codes() * 255).astype(np.uint8)
    _segment(tomo, codes[[2, 0, 1]], ("lumen", "background", "membrane"))
    build_view(tomo, "net")
    np.testing.assert_array_equal(tomo.array("view")[1:], codes)


def test_a_foreground_of_all_classes_is_a_class(tomo: Tomogram) -> None:
    codes = np.rint(_codes()[:2] * 255).astype(np.uint8)
    _segment(tomo, codes, tomo.classes.merged.names)
    build_view(tomo, "net")
    assert tomo.image("view").channels == ("density", "background", "foreground")
    np.testing.assert_array_equal(tomo.array("view")[1:], codes)


def test_all_channels_lie_in_one_chunk_and_the_overview_is_one(tomo: Tomogram) -> None:
    _segment(tomo, _codes())
    build_view(tomo, "net")
    folder = tomo.path("view")
    assert tomo.array("view").chunk == (4, 64, 64, 64)
    level = tomo.attributes("view")["overview"]["level"]
    overview = zarr.open_array(folder / "overview" / "0", mode="r")
    assert overview.chunks == overview.shape
    np.testing.assert_array_equal(overview[...], tomo.array("view", level)[...])
    image = json.loads((folder / "overview" / "zarr.json").read_text())["attributes"]["ome"]
    (dataset,) = image["multiscales"][0]["datasets"]
    of_level = tomo.image("view").to_json()["multiscales"][0]["datasets"][level]
    assert dataset == of_level | {"path": "0"}
    assert [c["label"] for c in image["omero"]["channels"]] == ["density", *NAMES]
    files = {name for name in tomo.manifest("view") if name.startswith("overview/")}
    assert files == {"overview/zarr.json", "overview/0/zarr.json", "overview/0/c/0/0/0/0"}


@pytest.mark.parametrize(
    ("shapes", "level"),
    [
        ([(100, 315, 326), (50, 157, 163), (25, 78, 81)], 1),
        ([(40, 40, 40)], 0),
        ([(192, 192, 192), (96, 96, 96)], 0),
        ([(4000, 4000, 4000), (2000, 2000, 2000)], 1),
    ],
)
def test_the_overview_is_the_finest_level_that_fits(
    shapes: list[tuple[int, ...]], level: int
) -> None:
    assert overview_level(shapes) == level


def test_reading_is_block_by_block(tomo: Tomogram, monkeypatch: pytest.MonkeyPatch) -> None:
    _segment(tomo, _codes())
    monkeypatch.setattr(view_product, "_BLOCK_VOXELS", 64)
    monkeypatch.setattr("otzi_pipelines.low_pass._BLOCK_VOXELS", 64)
    sizes, read = [], LevelArray.__getitem__

    def watched(self: LevelArray, region: Any) -> Any:
        block = read(self, region)
        sizes.append(max(block.shape[-3:]))
        return block

    monkeypatch.setattr(LevelArray, "__getitem__", watched)
    build_view(tomo, "net")
    assert max(sizes) == 66


def test_density_alone_can_be_shown(tomo: Tomogram) -> None:
    assert build_view(tomo)
    assert tomo.image("view").channels == ("density",)
    assert tomo.array("view").shape == (1, *SHAPE)
    assert not build_view(tomo)


def test_a_second_run_does_nothing_until_something_changes(tomo: Tomogram) -> None:
    _segment(tomo, _codes())
    assert build_view(tomo, "net")
    assert not build_view(tomo, "net")
    assert tomo.attributes("view")["ramps"] == {}
    _set_ramps(tomo, 0.25)
    assert build_view(tomo, "net")
    assert tomo.attributes("view")["ramps"]["lumen"] == {"low": 0.25}
    assert set(tomo.attributes("view")["parents"]) == {"raw", "probs/net", "ramps/net"}
    assert not build_view(tomo, "net")
    assert build_view(tomo)


def test_an_interrupted_run_ends_bit_identical(
    tomo: Tomogram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_product, "_BLOCK_VOXELS", 64)
    build_view(tomo)
    expected = tomo.manifest("view")
    monkeypatch.setattr(view_product, "OVERVIEW_LONGEST_VOXELS", 40)

    def interrupt(event: Event) -> None:
        if event == Advanced("view", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_view(tomo, listen=interrupt)
    assert tomo.manifest("view") == expected
    build_view(tomo)
    levels = {name for name in expected if "/c/" in name and not name.startswith("overview")}
    assert {n: expected[n] for n in levels} == {n: tomo.manifest("view")[n] for n in levels}
    assert tomo.attributes("view")["overview"]["level"] == 2


def test_probabilities_must_fit(add_tomogram: Callable[..., Tomogram], tomo: Tomogram) -> None:
    with pytest.raises(NotFoundError, match="no probs/net"):
        build_view(tomo, "net")
    _segment(tomo, _codes(), ("background", "membrane", "ice"))
    with pytest.raises(ConfigurationError, match="has the classes background, membrane, ice"):
        build_view(tomo, "net")
    other = add_tomogram(np.zeros((8, 8, 9), np.int8), "other")
    _segment(other, _codes(shape=(8, 8, 8)), shape=(8, 8, 8))
    with pytest.raises(ConfigurationError, match=r"is \(8, 8, 8\), raw is \(8, 8, 9\)"):
        build_view(other, "net")
    assert not other.has("view")


def test_the_verb_takes_the_only_probabilities(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram], capfd: pytest.CaptureFixture[str]
) -> None:
    _segment(tomo, _codes())
    add_tomogram(np.zeros((8, 8, 8), np.int8), "plain")
    verb = inspect.unwrap(view_product.command)

    def run(**arguments: Any) -> None:
        arguments = {"tomograms": None, "probs": None} | arguments
        verb(Console(as_json=True), collection=str(tomo.collection.path), **arguments)

    run()
    made = json.loads(capfd.readouterr().out)
    assert made == {name: str(tomo.collection[name].path("view")) for name in ("plain", "ts_001")}
    assert tomo.attributes("view")["probs"] == "net"
    run(tomograms=["ts_001"])
    assert "ts_001: view is done already" in capfd.readouterr().err
    with tomo.write("probs/other", dtype="uint8", recipe={}, channels=NAMES) as writer:
        blocks = da.zeros((3, *SHAPE), dtype="uint8", chunks=(1, 64, 64, 64))
        da.store(blocks, writer, lock=False)
    with pytest.raises(UsageError, match=r"choose --probs net\|other"):
        run(tomograms=["ts_001"])
    run(tomograms=["ts_001"], probs="net")
