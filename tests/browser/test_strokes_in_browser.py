"""Strokes by real mouse events: on the disk, in voxels, on the screen; and what follows of them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from otzi.classes import rgb_of
from otzi.collection import open_collection
from otzi.stroke_voxels import rasterise
from otzi_viewers.page_state import change_state
from otzi_viewers.pages.website import Site
from otzi_viewers.snapshot import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from browser.driver import Browser
    from otzi.strokes import Strokes
    from otzi.tomogram import Tomogram
    from otzi_viewers.server import ViewServer

pytestmark = pytest.mark.browser

Z = 30
PIXELS_PER_VOXEL = 4
WATCH_OVERLAY = """
const { viewer } = document.getElementById("viewer").contentWindow;
window.took = [];
viewer.display.updateFinished.add(() => {
  const source = viewer.layerManager.getLayerByName("strokes").layer;
  const value = source.getValueAt(
    new Float32Array(viewer.position.value), { pickedRenderLayer: null },
  );
  if (value && Number(value) === 3 && window.begun) {
    window.took.push(performance.now() - window.begun);
    window.begun = 0;
  }
});
document.getElementById("viewer").contentDocument.addEventListener(
  "mousedown", () => { window.begun = performance.now(); }, true,
);
"""
"""Notes in ``took`` how many milliseconds after a click spikes are drawn in the middle."""


@pytest.fixture
def tomo(virion_tomogram: Tomogram, tmp_path: Path) -> Tomogram:
    """Give a copy to draw on."""
    folder = shutil.copytree(virion_tomogram.collection.path, tmp_path / "drawn")
    return open_collection(folder)["virion"]


@pytest.fixture
def site(server: ViewServer, tomo: Tomogram) -> Iterator[Site]:
    running = Site(server, tomo.collection)
    yield running
    running.close()


class Hand:
    """A mouse over the slice z = 30, at voxels from its middle."""

    def __init__(self, page: Browser, site: Site, tomo: Tomogram) -> None:
        self.page, self.site, self.tomo = page, site, tomo
        page.open(site.url + "show/virion?layout=xy")
        page.wait_for("the page", lambda: bool(page.script("document.body.dataset.ready")))
        self.viewer = site.workspace("virion").viewer
        _, y, x = tomo.shape
        place = {"position": [x // 2, y // 2, Z], "crossSectionScale": 1 / PIXELS_PER_VOXEL}
        change_state(self.viewer, lambda state: state | place | {"showAxisLines": False})
        page.driver.switch_to.frame("viewer")
        page.wait_for("the slice", lambda: self._scale() == 1 / PIXELS_PER_VOXEL)
        self.panel = page.driver.find_element(By.CSS_SELECTOR, ".neuroglancer-rendered-data-panel")

    def _scale(self) -> Any:
        return self.page.script("window.viewer.state.toJSON().crossSectionScale")

    def press(self, id_or_selector: str) -> None:
        """Click a button beside the frame."""
        self.page.driver.switch_to.default_content()
        self.page.driver.find_element(By.CSS_SELECTOR, id_or_selector).click()
        self.page.driver.switch_to.frame("viewer")

    def at(self, chain: ActionChains, y: float, x: float) -> ActionChains:
        pixels = (round(x * PIXELS_PER_VOXEL), round(y * PIXELS_PER_VOXEL))
        return chain.move_to_element_with_offset(self.panel, *pixels)

    def click(self, *places: tuple[float, float]) -> None:
        for place in places:
            chain = ActionChains(self.page.driver, duration=20)
            self.at(chain, *place).click().perform()

    def drag(self, *places: tuple[float, float]) -> None:
        chain = ActionChains(self.page.driver, duration=50)
        self.at(chain, *places[0]).click_and_hold()
        for place in places[1:]:
            self.at(chain, *place)
        chain.release().perform()

    def key(self, key: str) -> None:
        ActionChains(self.page.driver).send_keys(key).perform()

    def wait_for(self, n: int) -> Strokes:
        """Wait until so many strokes are kept, and give them."""
        workspace = self.site.workspace("virion")
        self.page.wait_for(f"{n} strokes", lambda: workspace.status()["n_strokes"] == n)
        return workspace.strokes

    def middle(self, *places: tuple[float, float]) -> np.ndarray:
        """Give the points, z, y, x, of places."""
        _, y, x = self.tomo.shape
        return np.array([[Z, y // 2 + dy, x // 2 + dx] for dy, dx in places], float)


@pytest.fixture
def hand(page: Browser, site: Site, tomo: Tomogram) -> Iterator[Hand]:
    yield Hand(page, site, tomo)
    page.driver.switch_to.default_content()


def _journal(tomo: Tomogram) -> list[dict[str, Any]]:
    path = tomo.folder / "strokes" / "drawn.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_tool_becomes_strokes_on_the_disk(hand: Hand, tomo: Tomogram) -> None:
    hand.press("[data-tool=dab]")
    hand.press("[data-class=lumen]")
    dabs = [(0.0, 0.0), (-8.0, 3.0), (5.0, -6.0), (9.0, 9.0), (-4.0, -10.0)]
    hand.click(*dabs)
    hand.wait_for(5)
    hand.press("[data-tool=line]")
    hand.press("[data-class=membrane]")
    hand.drag((-12.0, -12.0), (-12.0, 10.0))
    hand.wait_for(6)
    hand.click((12.0, -12.0), (15.0, 8.0))
    hand.wait_for(7)
    hand.key("p")
    hand.key("w")
    corners = [(3.0, -14.0), (7.0, -14.0), (7.0, 12.0)]
    hand.click(*corners)
    hand.key(Keys.ENTER)
    hand.wait_for(8)
    hand.key("f")
    hand.drag((-2.0, 14.0), (0.0, 14.0), (2.0, 14.0), (4.0, 14.0))
    strokes = hand.wait_for(9).strokes

    assert [s.class_name for s in strokes] == ["lumen"] * 5 + ["membrane"] * 2 + ["spikes"] * 2
    assert {s.radius_voxels for s in strokes} == {2.0}
    expected = [*((dab,) for dab in dabs), ((-12, -12), (-12, 10)), ((12, -12), (15, 8)), corners]
    for stroke, places in zip(strokes, expected, strict=False):
        np.testing.assert_allclose(stroke.points, hand.middle(*places), atol=0.3)
    freehand = np.array(strokes[-1].points)
    assert len(freehand) > 3
    np.testing.assert_allclose(freehand[[0, -1]], hand.middle((-2, 14), (4, 14)), atol=0.3)
    assert all(event["user"] and event["time"] for event in _journal(tomo))

    voxels = rasterise(strokes, tomo.classes, tomo.shape)
    spheres = rasterise(
        [s for s in strokes if s.class_name == "lumen"], tomo.classes, tomo.shape
    ).counts(4)[3]
    assert 5 * 28 <= spheres <= 5 * 38  # a ball of radius 2 has 33.5 voxels
    assert voxels.counts(4)[1] > 2 * 20 * 9


def test_strokes_lie_on_the_screen_where_they_are(hand: Hand, tomo: Tomogram) -> None:
    hand.press("[data-tool=dab]")
    hand.press("[data-class=spikes]")
    hand.click((0.0, 0.0), (6.0, -9.0))
    strokes = hand.wait_for(2)
    hand.page.driver.switch_to.default_content()
    _, y, x = tomo.shape
    alone = {"position": [(x - 1) / 2, (y - 1) / 2, Z], "crossSectionScale": 1}

    def strokes_only(state: dict[str, Any]) -> dict[str, Any]:
        # The lowest layer is not blended: it is the one that draws nothing in slices.
        layers = [
            layer | {"visible": layer["name"] in ("3-D", "strokes")} for layer in state["layers"]
        ]
        layers[-1]["shaderControls"] = {"opacity": 1}
        changed = state | alone | {"layers": layers, "showScaleBar": False}
        return {key: value for key, value in changed.items() if key != "selectedLayer"}

    change_state(hand.viewer, strokes_only)
    with hand.viewer.config_state.txn() as config:
        config.show_ui_controls = False
        config.show_panel_borders = False
        config.viewer_size = (x, y)
    drawn = take_snapshot(hand.viewer, pixels=(x, y)).pixels
    labels = rasterise(strokes.strokes, tomo.classes, tomo.shape)
    plane = np.zeros(tomo.shape, np.uint8)
    plane[tuple(labels.coordinates.T)] = labels.classes + 1
    color = np.rint(255 * np.array(rgb_of(tomo.classes[2].color)))
    expected = np.where((plane[Z] == 3)[..., None], color, 0)
    assert plane[Z].any()
    np.testing.assert_array_equal(drawn, expected)


def test_a_stroke_is_on_the_screen_at_once(hand: Hand) -> None:
    hand.press("[data-tool=dab]")
    hand.press("[data-class=spikes]")
    hand.page.driver.switch_to.default_content()
    hand.page.driver.execute_script(WATCH_OVERLAY)
    hand.page.driver.switch_to.frame("viewer")
    hand.click((0.0, 0.0))
    hand.wait_for(1)
    hand.page.driver.switch_to.default_content()
    hand.page.wait_for("the overlay", lambda: bool(hand.page.script("window.took.length")))


def test_undo_and_reopening_lose_nothing(hand: Hand, tomo: Tomogram) -> None:
    hand.press("[data-tool=dab]")
    hand.click((0.0, 0.0), (4.0, 4.0), (8.0, 8.0))
    kept = hand.wait_for(3).strokes
    hand.press("#undo")
    hand.wait_for(2)
    hand.key("u")
    assert hand.wait_for(1).strokes == kept[:1]
    assert [event["action"] for event in _journal(tomo)] == ["draw"] * 3 + ["undo"] * 2
    hand.press("[data-tool=move]")
    before = hand.viewer.state.position
    hand.drag((0.0, 0.0), (5.0, 5.0))
    hand.page.wait_for("a moved slice", lambda: list(hand.viewer.state.position) != list(before))
    assert len(hand.wait_for(1).strokes) == 1
    again = Site(hand.site._server, open_collection(tomo.collection.path))
    assert again.workspace("virion").strokes.strokes == kept[:1]


def test_labels_follow_from_what_was_drawn(hand: Hand, tomo: Tomogram) -> None:
    for name, place in {"background": (-40.0, -30.0), "membrane": (0.0, 20.0)}.items():
        hand.press(f"[data-class={name}]")
        hand.press("[data-tool=dab]")
        hand.click((place[0] / 2, place[1] / 2))
    hand.wait_for(2)
    hand.key("j")
    workspace = hand.site.workspace("virion")

    def is_ended() -> bool:
        job = workspace.jobs.last
        return job is not None and job.state != "running"

    hand.page.wait_for("the end", is_ended, 600)
    status = workspace.status()
    job = status["job"]
    assert (job["name"], job["state"], job["text"]) == ("pseudo-labels", "done", "")
    assert status["segmentation"] == "labels/drawn"
    names = [layer.name for layer in hand.viewer.state.layers]
    assert names == ["raw", "3-D", "slices", "uncertainty", "strokes"]
    assert tomo.attributes("strokes")["n_voxels"]["membrane"] > 20
    hand.page.driver.switch_to.default_content()
    shot = take_snapshot(hand.viewer)
    assert shot.spacings["slices", "ImageRenderLayer"] == "784pm"
