"""The list, the page of a tomogram, and what it keeps: as a person uses them."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from otzi.collection import open_collection
from otzi_viewers.compose import slice_image, uncertainty_color
from otzi_viewers.figure import make_figure
from otzi_viewers.layers import (
    UNCERTAINTY_COLOR,
    UNCERTAINTY_OPACITY,
    Addresses,
    slice_style,
    tomogram_state,
)
from otzi_viewers.page_state import change_state
from otzi_viewers.pages.markup import KEYS
from otzi_viewers.pages.website import Site
from otzi_viewers.segmentation import Segmentation
from otzi_viewers.snapshot import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from browser.driver import Browser
    from otzi.tomogram import Tomogram
    from otzi_viewers.server import ViewServer

pytestmark = pytest.mark.browser

Z = 30


@pytest.fixture(scope="module")
def tomo(virion_tomogram: Tomogram, tmp_path_factory: pytest.TempPathFactory) -> Tomogram:
    """Give a copy with a second segmentation: the classes the other way round."""
    folder = tmp_path_factory.mktemp("workspace") / "collection"
    shutil.copytree(virion_tomogram.collection.path, folder)
    tomo = open_collection(folder, mode="r+")["virion"]
    other = tomo.array("probs/net")[...][[0, 3, 2, 1]]
    with tomo.write("probs/other", dtype="u1", recipe={}, channels=tomo.classes.names) as writer:
        da.store(da.from_array(other, chunks=(4, 64, 64, 64)), writer, lock=False)
    return tomo


@pytest.fixture
def site(server: ViewServer, tomo: Tomogram) -> Iterator[Site]:
    running = Site(server, tomo.collection)
    yield running
    running.close()


def _ready(page: Browser) -> None:
    page.wait_for("the page", lambda: bool(page.script("document.body.dataset.ready")))


def _slice_alone(tomo: Tomogram, **changes: Any) -> dict[str, Any]:
    """Give the part of a state in which a pixel of the panel is a voxel of the slice z = 30."""
    _, y, x = tomo.shape
    return {
        "position": [(x - 1) / 2, (y - 1) / 2, Z],
        "crossSectionScale": 1,
        "showAxisLines": False,
        "showScaleBar": False,
    } | changes


def _is_in(wanted: np.ndarray, picture: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(picture, wanted.shape)[:, :, 0]
    # No grey level of difference, but where the value lies between two to a thousandth.
    found = (np.abs(windows.astype(int) - wanted).max(axis=(-3, -2, -1)) <= 1).any()
    return bool(found)


def test_one_click_opens_a_view(page: Browser, site: Site) -> None:
    page.open(site.url)
    picture = page.driver.find_element(By.CSS_SELECTOR, "article img")
    page.wait_for("the thumbnail", lambda: int(picture.get_property("naturalWidth")) == 80)
    page.driver.find_element(By.ID, "search").send_keys("nothing")
    assert page.driver.find_element(By.ID, "found").text == "0 tomograms"
    page.driver.find_element(By.ID, "search").send_keys(Keys.CONTROL, "a", Keys.DELETE)
    page.driver.find_element(By.LINK_TEXT, "xz").click()
    _ready(page)
    viewer = site.workspace("virion").viewer
    page.wait_for("the layout", lambda: viewer.state.layout.type == "xz")
    page.driver.find_element(By.CSS_SELECTOR, "[data-layout='4panel']").click()
    page.wait_for("the layout", lambda: viewer.state.layout.type == "4panel")


def test_the_page_says_what_can_be_done(page: Browser, site: Site) -> None:
    page.open(site.url + "show/virion?layout=3d&segmentation=probs/net")
    _ready(page)
    sidebar = "document.querySelector('aside').innerText"
    for text in ("72 × 96 × 80 voxels", "56 × 75 × 63 nm, 7.84\u00a0Å", "Threshold of each slice"):
        assert text in page.script(sidebar)
    assert page.script("document.querySelectorAll('figure polyline').length") == 4
    page.driver.find_element(By.TAG_NAME, "summary").click()
    assert all(does in page.script(sidebar) for does in KEYS.values())
    state = "document.getElementById('viewer').contentWindow.viewer.state.toJSON()"
    assert page.script(f"{state}.selectedLayer") == {"layer": "3-D", "visible": True, "size": 370}
    page.driver.find_element(By.ID, "sliders").click()
    assert "visible" not in page.script(f"{state}.selectedLayer")
    viewer = site.workspace("virion").viewer
    page.wait_for("the state", lambda: not viewer.state.selected_layer.visible)
    page.driver.find_element(By.CSS_SELECTOR, "[data-layout=xy]").click()
    page.wait_for(
        "slices' controls", lambda: page.script(f"{state}.selectedLayer.layer") == "slices"
    )
    assert "visible" not in page.script(f"{state}.selectedLayer")
    Select(page.driver.find_element(By.ID, "segmentation")).select_by_value("probs/other")
    page.wait_for("no curves", lambda: "Threshold" not in page.script(sidebar))


def test_what_is_saved_is_what_was_on_the_screen(page: Browser, site: Site, tomo: Tomogram) -> None:
    page.open(site.url + "show/virion?layout=xy&segmentation=probs/other")
    _ready(page)
    viewer = site.workspace("virion").viewer
    page.driver.switch_to.frame("viewer")
    page.wait_for("the client", lambda: bool(page.script("!!window.viewer.layerManager")))
    slider = "input[type=number], input.neuroglancer-slider-number"
    page.wait_for("sliders", lambda: len(page.driver.find_elements(By.CSS_SELECTOR, slider)) > 5)
    page.driver.execute_script(
        """
        const layers = window.viewer.layerManager.managedLayers;
        const { layer } = layers.find((one) => one.name === "slices");
        layer.shaderControlState.value.get("a_lumen").trackable.value = 0.625;
        """
    )
    page.wait_for(
        "the value",
        lambda: viewer.state.layers["slices"].layer.shader_controls.get("a_lumen") == 0.625,
    )
    page.driver.switch_to.default_content()
    page.driver.find_element(By.ID, "save").click()
    page.wait_for("the style", lambda: tomo.has("styles/probs.other"))
    said = "document.getElementById('message').textContent"
    page.wait_for("a word", lambda: page.script(said).startswith("saved"))
    style = slice_style(tomo, Segmentation.of(tomo, "probs/other"))
    assert style.classes[3].low == 0.625


def test_two_segmentations_are_beside_each_other_and_move_together(
    page: Browser, site: Site, tomo: Tomogram
) -> None:
    page.open(site.url + "show/virion?layout=xy&segmentation=probs/net")
    _ready(page)
    Select(page.driver.find_element(By.ID, "beside")).select_by_value("probs/other")
    viewer = site.workspace("virion").viewer
    page.wait_for("columns", lambda: viewer.state.layout.type == "row")
    z, y, x = tomo.shape

    def alone(state: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in state.items() if key != "selectedLayer"}
        return kept | _slice_alone(tomo)

    change_state(viewer, alone)
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False
        config.show_panel_borders = False
        config.viewer_size = (2 * x, y)
    for depth in (Z, z // 2):
        change_state(viewer, lambda s, d=depth: s | {"position": [(x - 1) / 2, (y - 1) / 2, d]})
        drawn = take_snapshot(viewer, pixels=(2 * x, y)).pixels
        values = tomo.array("view")[:, depth]
        for part, shown, product in (
            (drawn[:, :x], values, "probs/net"),
            (drawn[:, x:], values[[0, 1, 4, 3, 2]], "probs/other"),
        ):
            style = slice_style(tomo, Segmentation.of(tomo, product))
            middle = slice_image(shown, style)[24:72, 20:60]
            assert _is_in(middle, part), product


@pytest.mark.parametrize("margin", [False, True])
def test_uncertainty_is_that_of_numpy(
    margin: bool, page: Browser, server: ViewServer, tomo: Tomogram
) -> None:
    address = Addresses(server.serve(tomo.collection.path))
    state = tomogram_state(tomo, address, layout="xy", segmentation=Segmentation.of_view(tomo))
    shown = tuple(
        replace(layer, is_visible=layer.in_3d or layer.name == "uncertainty")
        for layer in state.layers
    )
    document = replace(state, layers=shown, selected=None).to_json() | _slice_alone(tomo)
    for layer in document["layers"]:
        if layer["name"] == "uncertainty":
            layer["shaderControls"] = {"margin": margin}
    _, y, x = tomo.shape
    viewer = server.show(replace(state, layers=shown, selected=None), (x, y))
    viewer.set_state(document)
    page.open(viewer.get_viewer_url())
    drawn = take_snapshot(viewer).pixels
    values = tomo.array("view")[:, Z]
    color = uncertainty_color(values, UNCERTAINTY_COLOR, UNCERTAINTY_OPACITY, margin=margin)
    assert drawn.max() > 100
    # Neuroglancer keeps the square of alpha; where that rounds to 0, nothing is drawn.
    is_drawn = np.rint(255 * color[..., 3] ** 2) > 0
    expected = 255 * color[..., :3] * is_drawn[..., None]
    assert np.abs(drawn - expected).max() <= 1
    other = uncertainty_color(values, UNCERTAINTY_COLOR, UNCERTAINTY_OPACITY, margin=not margin)
    assert np.abs(drawn - 255 * other[..., :3]).max() > 10


def test_a_figure_is_the_same_each_time(page: Browser, site: Site, tomo: Tomogram) -> None:
    page.open(site.url + "show/virion?layout=xy&segmentation=probs/net")
    _ready(page)
    workspace = site.workspace("virion")
    workspace.show({"beside": None})
    before = workspace.viewer.state.to_json()["selectedLayer"]
    first = make_figure(workspace.viewer, workspace.source(), (160, 120))
    assert workspace.viewer.state.to_json()["selectedLayer"] == before
    page.open(site.url + "show/virion")
    _ready(page)
    assert make_figure(workspace.viewer, workspace.source(), (160, 120)) == first
    image = Image.open(io.BytesIO(first))
    assert image.size == (160, 120)
    source = json.loads(image.text["otzi source"])
    assert source["digests"]["probs/net"] == tomo.digest("probs/net")
    assert source["tables"][0]["slices"] == slice_style(tomo).digest
    assert "slices: ImageRenderLayer" in json.loads(image.text["otzi levels"])


def test_a_picture_can_be_kept_from_the_page(page: Browser, site: Site, tmp_path: Path) -> None:
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.open(site.url + "show/virion?layout=xy")
    _ready(page)
    page.driver.find_element(By.ID, "figure").click()
    file = tmp_path / "virion.png"
    page.wait_for("the file", file.is_file)
    with Image.open(file) as picture:
        assert picture.size == (1200, 900)
