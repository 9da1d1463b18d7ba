"""What goes wrong is reported, never a plausible wrong picture and never a wait without end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from browser.driver import DataError, ShaderError
from otzi.collection import open_collection
from otzi.errors import CorruptShard, OtziError, TemporaryFailure
from otzi_viewers.layers import tomogram_state
from otzi_viewers.shader import shader
from otzi_viewers.snapshot import take_snapshot
from otzi_viewers.style import ClassStyle, Style
from otzi_viewers.view import check_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from browser.driver import Browser
    from otzi.events import Event
    from otzi.tomogram import Tomogram
    from otzi_viewers.server import ViewServer
    from otzi_viewers.shader import Mode3d

pytestmark = pytest.mark.browser


def _shown(
    page: Browser, server: ViewServer, tomo: Tomogram, layer: str, tab: str, shader_text: str = ""
) -> Any:
    """Open the page of a tomogram with a tab of a layer, whose shader may be another."""
    state = tomogram_state(tomo, server.serve(tomo.collection.path), layout="4panel")
    layers = (
        replace(one, shader=shader_text) if shader_text and one.name == layer else one
        for one in state.layers
    )
    document = replace(state, layers=tuple(layers), selected=layer).to_json()
    for entry in document["layers"]:
        entry |= {"tab": tab, "codeVisible": True}
        entry["volumeRenderingDepthSamples"] = 8
    viewer = server.show(state)
    viewer.set_state(document)
    page.open(viewer.get_viewer_url())
    return viewer


@pytest.mark.parametrize("mode3d", ["over", "stock"])
@pytest.mark.parametrize("names", [(), ("membrane", "void"), ("int", "x_1", "true", "a_b_")])
def test_every_shape_of_class_table_compiles(
    names: tuple[str, ...],
    mode3d: Mode3d,
    page: Browser,
    server: ViewServer,
    virion_tomogram: Tomogram,
) -> None:
    style = Style(tuple(ClassStyle(name, i + 1, "#A0b1c2") for i, name in enumerate(names)))
    text = shader(style, mode3d)
    viewer = _shown(page, server, virion_tomogram, "3-D", "rendering", text)
    shot = take_snapshot(viewer)
    assert {kind for name, kind in shot.spacings if name == "3-D"} == {
        "ImageRenderLayer",
        "VolumeRenderingRenderLayer",
    }
    page.check("rendering", seconds=0.5)


@pytest.mark.parametrize("layer", ["slices", "3-D"])
@pytest.mark.parametrize(
    ("good", "bad"), [("sum.a)", "sum.alpha)"), ("slider(min=0,", "slider(least=0,")]
)
def test_a_broken_shader_is_reported(
    layer: str, good: str, bad: str, page: Browser, server: ViewServer, virion_tomogram: Tomogram
) -> None:
    text = shader(Style((ClassStyle("membrane", 1, "#a0b1c2"),)), "over")
    assert good in text
    _shown(page, server, virion_tomogram, layer, "rendering", text.replace(good, bad))
    with pytest.raises(ShaderError):
        page.check("rendering")


@pytest.fixture
def damaged(virion_tomogram: Tomogram, tmp_path: Path) -> Tomogram:
    """Give a copy to be damaged."""
    folder = shutil.copytree(virion_tomogram.collection.path, tmp_path / "damaged")
    return open_collection(folder)["virion"]


def _lose_shard(view: Path) -> None:
    (view / "0" / "c" / "0" / "0" / "0" / "0").unlink()


def _truncate_shard(view: Path) -> None:
    shard = view / "0" / "c" / "0" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-500])


@pytest.mark.parametrize("damage", [_lose_shard, _truncate_shard])
def test_a_damaged_shard_is_an_error_before_and_after_the_page_opens(
    damage: Callable[[Path], None], page: Browser, server: ViewServer, damaged: Tomogram
) -> None:
    damage(damaged.path("view"))
    with pytest.raises(CorruptShard, match="make view of virion again"):
        check_files(damaged)
    heard: list[Event] = []
    state = tomogram_state(damaged, server.serve(damaged.collection.path, heard.append))
    viewer = server.show(replace(state, layout="xy", voxels_per_pixel=0.5), (100, 100))
    page.open(viewer.get_viewer_url())
    with pytest.raises(CorruptShard, match="chunks of the view cannot be read"):
        take_snapshot(viewer)
    if damage is _lose_shard:
        assert "is missing" in str(heard[0])


def _lose_metadata(view: Path) -> None:
    (view / "zarr.json").unlink()


def _make_float16(view: Path) -> None:
    path = view / "0" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_type": "float16"}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [(_lose_metadata, "metadata|Not Found|not found|404"), (_make_float16, "float16")],
)
def test_an_unreadable_layer_is_an_error_of_its_source(
    damage: Callable[[Path], None],
    says: str,
    page: Browser,
    server: ViewServer,
    damaged: Tomogram,
) -> None:
    address = damaged.path("view")
    state_of = tomogram_state(damaged, "http://unused")
    damage(address)
    state = replace(
        state_of,
        layers=tuple(
            replace(
                one, url=one.url.replace("http://unused", server.serve(damaged.collection.path))
            )
            for one in state_of.layers
        ),
        selected="slices",
    )
    document = state.to_json()
    for entry in document["layers"]:
        entry["tab"] = "source"
    viewer = server.show(state)
    viewer.set_state(document)
    page.open(viewer.get_viewer_url())
    with pytest.raises(DataError, match=says):
        page.check("source")
    with pytest.raises(TemporaryFailure, match="no picture within 1 s"):
        take_snapshot(viewer, 1)


def test_a_closed_page_is_an_error_not_a_wait(
    server: ViewServer, virion_tomogram: Tomogram
) -> None:
    state = tomogram_state(virion_tomogram, server.serve(virion_tomogram.collection.path))
    with pytest.raises(OtziError, match="open the page"):
        take_snapshot(server.show(state), 0.2)
