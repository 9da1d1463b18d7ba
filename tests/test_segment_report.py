"""The report of a run: its numbers are those of the run, for machines and for people."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from otzi.classes import rgb_of
from otzi.events import Advanced, Finished, Started
from otzi.tiles.plan import TilePlan
from otzi_pipelines.ramps.estimate import thresholds_of
from otzi_pipelines.ramps.stored import publish_ramps
from otzi_pipelines.segment.observe import Observer
from otzi_pipelines.segment.report import (
    RunMeter,
    RunSettings,
    publish_report,
    read_report,
    run_document,
)
from otzi_pipelines.segment.report_page import report_page
from otzi_pipelines.segment.slices_picture import draw_middle_slices

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram

SHAPE = (20, 40, 28)
PLAN = TilePlan(SHAPE, tile=16, overlap=4)
SETTINGS = RunSettings(
    model="ab" * 32, tile=16, overlap=4, dtype="uint8", workers=2, device="cpu", memory_bytes=10**9
)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    """Give density that grows along x."""
    return add_tomogram(np.broadcast_to(np.arange(28, dtype=np.float32), SHAPE))


@pytest.fixture
def observer(tomo: Tomogram) -> Observer:
    """Publish membrane in the upper half of y, and give who saw it."""
    codes = np.zeros((3, *SHAPE), np.uint8)
    codes[1, :, :20], codes[0, :, 20:] = 255, 255
    seen = Observer(SHAPE, tomo.classes.names, "uint8", PLAN)
    with tomo.write(
        "probs/net",
        dtype="uint8",
        channels=tomo.classes.names,
        chunk_voxels=12,
        recipe={},
        parents=("raw",),
    ) as writer:
        for index in PLAN.tiles:
            cell = PLAN.cell(index)
            region = (slice(None), *cell.slices)
            writer[region] = codes[region]
            seen.see(cell, codes[region])
    publish_ramps(tomo, "net", thresholds_of(tomo.classes.names, seen.histograms))
    return seen


@pytest.fixture
def document(tomo: Tomogram, observer: Observer) -> dict[str, Any]:
    peak: Any = SimpleNamespace(peak_bytes=400_000_000, is_since_start=True)
    meter = RunMeter(memory=peak)
    meter(Finished("segment", 2.5, 500_000_000))
    return run_document(tomo, "net", SETTINGS, observer.observation(), meter, 9)


class Page(HTMLParser):
    """What a browser would see: balanced elements, rows of text, and pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.pictures: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        elif tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1].append(data)


def test_the_document_says_what_was_done(tomo: Tomogram, document: dict[str, Any]) -> None:
    assert document["tiles"] == {"n_tiles": 12, "inferred": 9, "inferred_per_tile": 0.75}
    assert document["coverage"]["share"] == 1
    assert document["sum"]["wrong_voxels"] == 0
    assert document["memory"]["peak_bytes"] == 400_000_000
    assert document["memory"]["is_within"]
    assert document["seconds"] == {"segment": 2.5}
    assert document["digests"] == {
        "model": "ab" * 32,
        "raw": tomo.digest("raw"),
        "probs/net": tomo.digest("probs/net"),
    }
    assert list(document["ramps"]) == list(tomo.classes.names)
    # The step from membrane to background lies at y = 20, no tile plane: 12, 16, 24, 28.
    (seam,) = (s for s in document["seams"] if (s["axis"], s["class"]) == ("y", "membrane"))
    assert seam["at_tiles"] == 0
    assert seam["elsewhere"] == pytest.approx(1 / 35)
    assert json.loads(json.dumps(document)) == document


def test_what_is_published_is_whole(tomo: Tomogram, document: dict[str, Any]) -> None:
    page = publish_report(tomo, "net", document)
    assert page == tomo.path("reports/net") / "report.html"
    assert read_report(tomo, "net") == document
    assert set(tomo.attributes("reports/net")["parents"]) == {"probs/net"}
    pictures = Page(page.read_text()).pictures
    files = {"zarr.json", "report.json", "report.html", "slices.png", "thresholds.png"}
    assert set(tomo.manifest("reports/net")) == files
    for name in pictures:
        with Image.open(str(tomo.path("reports/net") / name)) as image:
            assert min(image.size) > 20
    assert pictures == ["slices.png", "thresholds.png"]


def test_the_page_has_the_numbers(document: dict[str, Any]) -> None:
    document["seams"][0] |= {"ratio": 1.31}
    rows = Page(report_page(document, slices="a.png", curves="b.png")).rows
    facts = {row[0]: row[1:] for row in rows}
    assert facts["coverage"] == ["100%, 22,400 voxels, each once"]
    assert facts["peak memory of this process"] == ["400.0 MB, 1.0 GB allowed"]
    document["memory"] |= {"allowed_bytes": 10**8, "is_within": False}
    page = report_page(document, slices="a.png", curves="b.png")
    assert "400.0 MB, MORE than the 100.0 MB allowed" in page
    document["memory"]["is_since_start"] = False
    page = report_page(document, slices="a.png", curves="b.png")
    assert "400.0 MB since the process began, MORE than" in page
    assert facts["slab"] == ["slices 0 to 19, margins 0 Å and 0 Å"]
    assert facts["tiles"] == ["12 of 16 voxels, overlap 4; inferred in this run: 9"]
    assert facts["segment"] == ["2.5 s"]
    assert facts["probs/net"] == [document["digests"]["probs/net"]]
    seams = [row for row in rows if row[0] in ("z", "y", "x")]
    assert len(seams) == 9
    assert seams[0][-1] == "1.310"
    assert "voxels without a prediction" not in facts


def test_names_cannot_carry_markup(document: dict[str, Any]) -> None:
    document["tomogram"] = "<script>alert(1)</script>"
    document["digests"]["<b>"] = "<i>"
    html = report_page(document, slices='a" onerror="x.png', curves="b.png")
    assert "<script>" not in html
    assert "<i>" not in html
    assert Page(html).pictures[0] == 'a" onerror="x.png'


def test_a_meter_keeps_times_and_passes_on() -> None:
    heard: list[Any] = []
    meter = RunMeter(heard.append)
    events = [
        Started("segment", 9, "tiles"),
        Finished("segment", 1.5, 300),
        Advanced("view", 5),
        Finished("view", 0.5, 200),
    ]
    for event in events:
        meter(event)
    assert heard == events
    assert meter.seconds == {"segment": 1.5, "view": 0.5}
    assert 10**6 < meter.start_memory_bytes <= meter.memory.peak_bytes


def test_slices_show_density_and_classes(
    tomo: Tomogram, observer: Observer, tmp_path: Path
) -> None:
    image = np.asarray(draw_middle_slices(tomo, "probs/net"))
    # Panels of z, y and x under captions of 22 pixels; the widest is 28, with a gap of 6.
    rows = [22, 22 + 40 + 22, 22 + 40 + 22 + 20 + 22]
    assert image.shape == (rows[2] + 20, 2 * 40 + 6, 3)
    density = image[rows[0] : rows[0] + 40, :28, 0].astype(int)
    assert (np.diff(density, axis=1) >= 0).all()
    assert (density[:, 0] < density[:, -1]).all()
    overlay = image[rows[0] : rows[0] + 40, 46 : 46 + 28].astype(int)
    colour = 0.7 * 255 * np.array(rgb_of(tomo.classes[1].color))
    np.testing.assert_allclose(overlay[5, 0], colour + 0.3 * density[5, 0], atol=1.5)
    np.testing.assert_allclose(overlay[30], np.repeat(density[30][:, None], 3, 1), atol=1)
