"""A viewer for any web server: what is written, and what its configuration says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest

from otzi.errors import CannotCreate, ConfigurationError
from otzi_viewers import view
from otzi_viewers.export.nginx import nginx_configuration
from otzi_viewers.export.static_site import export_site

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Otzi
    from otzi.tomogram import Tomogram

VOLUME = np.random.default_rng(0).normal(0, 9, (20, 30, 40)).astype(np.float32)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    tomo = add_tomogram(VOLUME)
    with tomo.write("probs/net", dtype="u1", recipe={}, channels=tomo.classes.names) as writer:
        blocks = da.zeros((3, *VOLUME.shape), dtype="u1", chunks=(3, 64, 64, 64))
        da.store(blocks, writer, lock=False)
    return tomo


def test_the_verb_writes_a_viewer(tomo: Tomogram, otzi: Otzi, tmp_path: Path) -> None:
    folder = tmp_path / "viewer"
    run = otzi("view", tomo.collection.path, "--export", folder, "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out) == {
        "path": str(folder),
        "nginx": str(folder / "nginx.conf"),
        "tomograms": ["ts_001"],
    }
    state = json.loads((folder / "states" / "ts_001.json").read_text())
    names = [layer["name"] for layer in state["layers"]]
    assert names == ["raw", "3-D", "slices", "uncertainty"]
    place = "{collection}/tomograms/ts_001/view/1/|zarr3:"
    assert state["layers"][2]["source"]["url"] == place
    page = (folder / "index.html").read_text()
    assert 'href="v/otzi/#ts_001/3d"' in page
    assert 'src="thumbnails/ts_001.png?' in page
    assert (folder / "thumbnails" / "ts_001.png").read_bytes().startswith(b"\x89PNG")
    client = folder / "v" / "otzi"
    scripts = (client / "index.html").read_text().split('data-scripts="')[1].split('"')[0]
    assert len(scripts.split()) > 1
    assert all((client / name).is_file() for name in scripts.split())
    assert "Apache License" in (client / "LICENSE.neuroglancer").read_text()
    assert not list(folder.rglob("*.map"))


def test_nothing_that_is_computed_is_in_it(tomo: Tomogram, tmp_path: Path) -> None:
    export_site(tomo.collection, ["ts_001"], tmp_path / "viewer")
    state = json.loads((tmp_path / "viewer" / "states" / "ts_001.json").read_text())
    assert [layer["name"] for layer in state["layers"]] == ["raw"]
    assert state["layers"][0]["visible"]


def test_an_export_is_replaced_and_nothing_else(tomo: Tomogram, tmp_path: Path) -> None:
    folder = tmp_path / "viewer"
    export_site(tomo.collection, ["ts_001"], folder)
    (folder / "states" / "old.json").write_text("{}")
    export_site(tomo.collection, ["ts_001"], folder)
    assert [path.name for path in (folder / "states").iterdir()] == ["ts_001.json"]
    with pytest.raises(CannotCreate, match="is not empty and no export"):
        export_site(tomo.collection, ["ts_001"], tmp_path)


def test_products_are_brought_up_to_date_first(
    tomo: Tomogram, otzi: Otzi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(view, "call", lambda name, console, **k: calls.append((name, k)) or 0)
    run = otzi("view", tomo.collection.path, "ts_001", "--export", tmp_path / "v", "--probs", "net")
    assert run.code == 0, run.err
    (made,) = calls
    assert made[0] == "view-product"
    assert (made[1]["tomograms"], made[1]["probs"]) == (["ts_001"], "net")


@pytest.mark.parametrize("path", ["/srv/a;b", "/srv/$x", "/srv/{y}", '/srv/"', "/srv/a\nb"])
def test_paths_cannot_become_directives(path: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot stand in a configuration"):
        nginx_configuration(Path("/srv/viewer"), Path(path))


def test_nginx_takes_the_configuration(tmp_path: Path, require: Callable[[str, str], None]) -> None:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        require("browser", "nginx is not installed")
    file = tmp_path / "nginx.conf"
    file.write_text(nginx_configuration(tmp_path, tmp_path / "a collection"))
    run = subprocess.run([str(nginx), "-t", "-c", str(file)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
