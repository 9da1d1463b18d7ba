"""What cannot be shown is named, in the page and in Python, within seconds."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tornado.web import RequestHandler

from otzi.collection import open_collection
from otzi.errors import (
    ConfigurationError,
    CorruptShard,
    OtziError,
    TemporaryFailure,
    VerificationError,
)
from otzi.events import Warned
from otzi_viewers.page_state import change_state
from otzi_viewers.pages.website import Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from browser.driver import Browser
    from otzi.events import Event
    from otzi.tomogram import Tomogram
    from otzi_viewers.server import ViewServer

pytestmark = pytest.mark.browser

SECONDS = 120.0
"""On any machine; `bench_viewer.py` says how soon it is."""
SHARD = "0/c/0/0/0/0"


@pytest.fixture
def damaged(virion_tomogram: Tomogram, tmp_path: Path) -> Tomogram:
    """Give a copy to be damaged."""
    folder = shutil.copytree(virion_tomogram.collection.path, tmp_path / "damaged")
    return open_collection(folder)["virion"]


def _change_array(view: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = view / "0" / "zarr.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _make_float16(view: Path) -> None:
    _change_array(view, lambda array: array.update(data_type="float16"))


def _split_channels(view: Path) -> None:
    def change(array: dict[str, Any]) -> None:
        (sharding,) = (c for c in array["codecs"] if c["name"] == "sharding_indexed")
        sharding["configuration"]["chunk_shape"][0] = 1

    _change_array(view, change)


def _lose_metadata(view: Path) -> None:
    (view / "0" / "zarr.json").unlink()


def _lose_shard(view: Path) -> None:
    (view / SHARD).unlink()


def _truncate_shard(view: Path) -> None:
    (view / SHARD).write_bytes((view / SHARD).read_bytes()[:-500])


def _named(page: Browser, site: Site, error: type[OtziError], says: str) -> None:
    """Wait for an error in Python and its text in the page."""
    workspace = site.workspace("virion")

    def is_there() -> bool:
        return any(type(p) is error and says in str(p) for p in workspace.problems)

    page.wait_for(f"{error.__name__}: {says}", is_there, SECONDS)
    page.wait_for(
        "the text in the page",
        lambda: says in page.script("document.getElementById('problems').textContent"),
        SECONDS,
    )


DAMAGES: dict[str, tuple[Callable[[Path], None], type[OtziError], str]] = {
    "float16": (_make_float16, VerificationError, "float16"),
    "split channels": (_split_channels, VerificationError, "chunk dimension has extent 1"),
    "no metadata": (_lose_metadata, VerificationError, "layer slices cannot be shown"),
    "missing shard": (_lose_shard, CorruptShard, "chunks cannot be read"),
    "truncated shard": (_truncate_shard, CorruptShard, "chunks cannot be read"),
}


@pytest.mark.parametrize(("damage", "error", "says"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_data_are_named(
    damage: Callable[[Path], None],
    error: type[OtziError],
    says: str,
    page: Browser,
    server: ViewServer,
    damaged: Tomogram,
) -> None:
    damage(damaged.path("view"))
    heard: list[Event] = []
    site = Site(server, damaged.collection, heard.append)
    page.open(site.url + "show/virion?layout=xy")
    _named(page, site, error, says)
    warnings = [event.message for event in heard if isinstance(event, Warned)]
    assert sum(says in text for text in warnings) >= 1


def test_a_shader_that_does_not_compile_is_named(
    page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    site = Site(server, virion_tomogram.collection)
    page.open(site.url + "show/virion?layout=xy")
    page.wait_for("the page", lambda: bool(page.script("document.body.dataset.ready")))
    assert site.workspace("virion").problems == ()

    def spoil(state: dict[str, Any]) -> dict[str, Any]:
        layers = [
            layer | {"shader": layer["shader"].replace("sum.a)", "sum.alpha)")}
            if layer["name"] == "slices"
            else layer
            for layer in state["layers"]
        ]
        return state | {"layers": layers}

    change_state(site.workspace("virion").viewer, spoil)
    _named(page, site, ConfigurationError, "layer slices: its shader does not compile")


def test_lost_graphics_are_named(
    page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    site = Site(server, virion_tomogram.collection)
    page.open(site.url + "show/virion?layout=xy")
    page.wait_for("the page", lambda: bool(page.script("document.body.dataset.ready")), SECONDS)
    page.driver.execute_script(
        """
        const { gl } = document.getElementById("viewer").contentWindow.viewer.display;
        gl.getExtension("WEBGL_lose_context").loseContext();
        """
    )
    _named(page, site, TemporaryFailure, "has lost its graphics card: reload the page")


class _WithoutRanges(RequestHandler):
    """A server that sends whole files whatever is asked for, as that of Python's library does."""

    def initialize(self, folder: Path) -> None:
        self._folder = folder

    def head(self, path: str) -> None:
        self.set_header("Content-Length", str((self._folder / path).stat().st_size))

    def get(self, path: str) -> None:
        file = self._folder / path
        if not file.is_file():
            self.set_status(404)
            return
        self.finish(file.read_bytes())


def test_a_server_without_ranges_is_named(
    page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    folder = virion_tomogram.collection.path
    plain = server.mount("plain", [("(.*)", _WithoutRanges, {"folder": folder})])
    site = Site(server, virion_tomogram.collection)
    page.open(site.url + "show/virion?layout=xy")
    page.wait_for("the page", lambda: bool(page.script("document.body.dataset.ready")))

    def elsewhere(state: dict[str, Any]) -> dict[str, Any]:
        for layer in state["layers"]:
            if layer["name"] == "slices":
                _, _, place = layer["source"]["url"].partition("/tomograms/")
                layer["source"]["url"] = f"{plain}/tomograms/{place}"
        return state

    change_state(site.workspace("virion").viewer, elsewhere)
    _named(page, site, CorruptShard, "chunks cannot be read")
