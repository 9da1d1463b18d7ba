"""What comes with probabilities is the same, whether they were seen as written or read again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fake_models import PlaceModel
from otzi.events import Event, Noted, Warned
from otzi.tiles.plan import TilePlan
from otzi_pipelines.ramps.estimate import estimate_ramps
from otzi_pipelines.ramps.stored import Replacement, publish_ramps, read_ramps
from otzi_pipelines.segment import companions
from otzi_pipelines.segment.companions import observe_stored, publish_companions
from otzi_pipelines.segment.observe import Observer
from otzi_pipelines.segment.report import RunMeter, RunSettings, read_report
from otzi_pipelines.view_product import build_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SHAPE = (20, 40, 28)
PLAN = TilePlan(SHAPE, tile=16, overlap=4)
SETTINGS = RunSettings(
    model="ab" * 32, tile=16, overlap=4, dtype="uint8", workers=2, device="cpu", memory_bytes=10**9
)


def probabilities(tomo: Tomogram, dtype: str = "uint8") -> Observer:
    """Publish random probabilities cell by cell, and give who saw them."""
    parts = np.random.default_rng(0).dirichlet((2, 1, 1), SHAPE).transpose(3, 0, 1, 2)
    stored = parts.astype(dtype)
    if dtype == "uint8":
        upto = np.rint(np.cumsum(parts, axis=0) * 255).astype(int)
        stored = np.diff(upto, axis=0, prepend=0).astype(np.uint8)
    observer = Observer(SHAPE, tomo.classes.names, dtype, PLAN)
    with tomo.write(
        "probs/net",
        dtype=dtype,
        channels=tomo.classes.names,
        chunk_voxels=12,
        recipe={},
        parents=("raw",),
    ) as writer:
        for index in PLAN.tiles:
            cell = PLAN.cell(index)
            region = (slice(None), *cell.slices)
            writer[region] = stored[region]
            observer.see(cell, stored[region])
    return observer


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(np.random.default_rng(1).normal(0, 9, SHAPE).astype(np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_ramps_are_bit_equal_to_those_of_a_second_reading(tomo: Tomogram, dtype: str) -> None:
    settings = replace(SETTINGS, dtype=dtype)
    publish_companions(tomo, "net", settings, RunMeter(), probabilities(tomo, dtype))
    seen = tomo.manifest("ramps/net")
    # Another product of the same probabilities, so that the command has something to do.
    own = read_ramps(tomo, "net").thresholds
    publish_ramps(tomo, "net", own, {"lumen": Replacement(0.5, "tried out")})
    with tomo.stage("ramps/net", recipe={"method": "none"}, parents=()):
        pass
    assert estimate_ramps(tomo, "net")
    assert tomo.manifest("ramps/net") == seen


def test_what_was_seen_is_what_is_stored(tomo: Tomogram) -> None:
    seen = probabilities(tomo)
    found = observe_stored(tomo, "net", SETTINGS, RunMeter())
    assert found.observation() == seen.observation()
    np.testing.assert_array_equal(found.histograms, seen.histograms)


def test_nothing_is_read_that_was_seen(tomo: Tomogram, monkeypatch: pytest.MonkeyPatch) -> None:
    observer = probabilities(tomo)
    monkeypatch.setattr(companions, "observe_stored", None)
    heard: list[Event] = []
    meter = RunMeter(heard.append)
    publish_companions(tomo, "net", SETTINGS, meter, observer, n_inferred=12)
    assert tomo.products == ("raw", "probs/net", "ramps/net", "reports/net")
    assert heard[-1] == Noted(f"ts_001: report {tomo.path('reports/net') / 'report.html'}")
    assert read_report(tomo, "net")["tiles"]["inferred"] == 12
    before = [tomo.digest(product) for product in tomo.products]
    # A run that finds all of it has nothing to do; the view is a wish of its own.
    publish_companions(tomo, "net", SETTINGS, RunMeter())
    assert [tomo.digest(product) for product in tomo.products] == before
    publish_companions(tomo, "net", SETTINGS, RunMeter(), with_view=True)
    assert tomo.attributes("view")["ramps"] == tomo.attributes("ramps/net")["ramps"]
    assert not build_view(tomo, "net")


def test_what_a_killed_run_left_out_is_made_up_for(tomo: Tomogram) -> None:
    probabilities(tomo)
    publish_companions(tomo, "net", SETTINGS, RunMeter())
    document = read_report(tomo, "net")
    assert document["tiles"]["inferred"] == 0
    assert document["coverage"]["share"] == 1
    assert document["seconds"]["observe"] >= 0
    assert list(read_ramps(tomo, "net").entries) == list(tomo.classes.names)


def test_memory_beyond_what_is_allowed_is_told(tomo: Tomogram) -> None:
    heard: list[Event] = []
    peak: Any = SimpleNamespace(peak_bytes=2 * 10**9, is_since_start=True)
    meter = RunMeter(heard.append, memory=peak)
    publish_companions(tomo, "net", SETTINGS, meter, probabilities(tomo))
    warnings = [event.message for event in heard if isinstance(event, Warned)]
    assert warnings == [
        "ts_001 took 2.0 GB, --memory is 1.0 GB: allow more next time, and report it"
    ]
    assert not read_report(tomo, "net")["memory"]["is_within"]


def test_limits_of_the_collection_stay(tomo: Tomogram) -> None:
    publish_companions(tomo, "net", SETTINGS, RunMeter(), probabilities(tomo))
    own = read_ramps(tomo, "net").thresholds
    publish_ramps(tomo, "net", own, {"lumen": Replacement(0.5, "it stands out")})
    publish_companions(tomo, "net", SETTINGS, RunMeter())
    assert read_ramps(tomo, "net").entries["lumen"]["reason"] == "it stands out"


def test_the_comparison_comes_into_the_report_and_stays(tomo: Tomogram) -> None:
    observer = probabilities(tomo)
    publish_companions(tomo, "net", SETTINGS, RunMeter(), observer, n_inferred=12)
    before = read_report(tomo, "net")
    assert "legacy" not in before
    model = PlaceModel()
    publish_companions(tomo, "net", SETTINGS, RunMeter(), legacy_model=model)
    found = read_report(tomo, "net")["legacy"]
    assert read_report(tomo, "net") == before | {"legacy": found}
    assert 0 < found["uncovered_share"] < 1
    page = (tomo.path("reports/net") / "report.html").read_text()
    assert f"{found['uncovered_share']:.1%}" in page
    n_tiles = len(model.tiles)
    publish_companions(tomo, "net", SETTINGS, RunMeter(), legacy_model=model)
    publish_companions(tomo, "net", SETTINGS, RunMeter())
    assert read_report(tomo, "net")["legacy"] == found
    assert len(model.tiles) == n_tiles
