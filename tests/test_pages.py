"""The text of the pages: nothing that a name says becomes markup, and curves are drawn right."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest

from otzi.classes import DEFAULT_CLASSES
from otzi_viewers.pages import website
from otzi_viewers.pages.curves import curves_figure, threshold_curves
from otzi_viewers.pages.listing import Entry, progress
from otzi_viewers.pages.markup import KEYS, list_page, workspace_page
from otzi_viewers.pages.thumbnails import Thumbnails

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

ENTRY = Entry("ts_001", "raw", (4, 5, 6), (10.0, 10.0, 10.0), ("raw",), "1")
EVIL = '<script>alert("1")</script>'
STATIC = website._STATIC


def _page(**facts: object) -> str:
    known = {"shape": (4, 5, 6), "spacing_angstrom": (10.0, 10.0, 10.0), "status": {}} | facts
    return workspace_page("ts_001", known, DEFAULT_CLASSES, "http://v/", "")


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        (("raw", "view"), "raw"),
        (("raw", "strokes"), "labelled"),
        (("raw", "labels/a", "strokes"), "labelled"),
        (("raw", "labels/a", "probs/b"), "segmented"),
    ],
)
def test_progress_is_the_furthest_product(products: tuple[str, ...], expected: str) -> None:
    assert progress(products) == expected


def test_names_do_not_become_markup() -> None:
    page = list_page(EVIL, [ENTRY], [EVIL])
    assert "<script>" not in page
    facts = _page(status={"job": {"text": "</script>" + EVIL}})
    assert "<script>" not in facts
    read = json.loads(facts.split('id="facts">')[1].split("</script>")[0])
    assert read["status"]["job"]["text"] == "</script>" + EVIL


def test_pages_need_no_inline_script_or_style() -> None:
    for page in (list_page("c", [ENTRY], []), _page()):
        assert not re.search(r"\son\w+=", page)
        assert "style=" not in page
        assert "<style" not in page
        for script in re.findall(r"<script[^>]*>", page):
            assert "src=" in script or 'type="application/json"' in script


def test_every_file_that_a_page_names_is_there() -> None:
    for page in (list_page("c", [ENTRY], []), _page()):
        for name in re.findall(r'static/([\w.]+)"', page):
            assert (STATIC / name).is_file()


def test_keys_that_are_listed_are_those_of_the_script() -> None:
    script = (STATIC / "workspace.js").read_text()
    page = _page()
    for key, does in KEYS.items():
        assert f"<dt>{key}</dt><dd>{does}</dd>" in page
    for key in "ujgqw":
        assert f"\n  {key}: () =>" in script
    for key in "mdfip":
        assert f'title="key {key}"' in page


def test_a_curve_runs_from_edge_to_edge_with_its_mean() -> None:
    curves = {"membrane": np.array([0, 0.5, np.nan, 1], np.float32), "none": np.full(3, np.nan)}
    drawing, caption = ElementTree.fromstring(curves_figure(curves, {"membrane": "#c79aab"}))
    line, mean = list(drawing)
    assert "".join(caption.itertext()) == "membrane 0.50"
    assert line.get("points") == "0.0,90.0 93.3,45.0 280.0,0.0"
    assert (mean.get("y1"), mean.get("y2")) == ("45.0", "45.0")
    assert line.get("stroke") == "#c79aab"


def test_curves_are_those_that_were_stored(add_tomogram: Callable[..., Tomogram]) -> None:
    import zarr

    tomo = add_tomogram(np.zeros((3, 8, 8), np.float32))
    with tomo.write("probs/net", dtype="u1", recipe={}, channels=tomo.classes.names) as writer:
        writer[:, :, :, :] = np.zeros((3, 3, 8, 8), np.uint8)
    assert threshold_curves(tomo, "probs/net") == {}
    stored = np.arange(9, dtype=np.float32).reshape(3, 3) / 9
    with tomo.stage("ramps/net", recipe={}, parents=("probs/net",)) as staging:
        zarr.create_array(staging.path / "thresholds", data=stored)
        staging.attributes["ramps"] = {name: {"low": 0.1} for name in tomo.classes.names}
    found = threshold_curves(tomo, "probs/net")
    assert list(found) == list(tomo.classes.names)
    np.testing.assert_array_equal(list(found.values()), stored)
    assert threshold_curves(tomo, "labels/x") == threshold_curves(tomo, None) == {}


def test_of_many_thumbnails_the_oldest_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otzi_viewers.pages.thumbnails._KEPT", 2)
    kept, made = Thumbnails(), []
    for id_ in ("a", "b", "a", "c", "a", "b"):
        picture = kept.get((id_, "1"), lambda id_=id_: made.append(id_) or id_.encode())
        assert picture == id_.encode()
    assert made == ["a", "b", "c", "b"]
