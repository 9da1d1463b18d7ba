"""A static viewer behind a real nginx: the same pictures, and nothing that is not to be sent."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.collection import open_collection
from otzi_viewers.compose import slice_image
from otzi_viewers.export.nginx import nginx_configuration
from otzi_viewers.export.static_site import export_site
from otzi_viewers.layers import slice_style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from browser.driver import Browser
    from otzi.tomogram import Tomogram

pytestmark = pytest.mark.browser


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def tomo(virion_tomogram: Tomogram, tmp_path_factory: pytest.TempPathFactory) -> Tomogram:
    folder = tmp_path_factory.mktemp("hosted") / "collection"
    shutil.copytree(virion_tomogram.collection.path, folder)
    tomo = open_collection(folder)["virion"]
    (tomo.folder / "strokes").mkdir()
    (tomo.folder / "strokes" / "drawn.jsonl").write_text("names")
    (tomo.folder / ".hidden").write_text("hidden")
    (tomo.folder / "link").symlink_to("/etc/passwd")
    return tomo


@pytest.fixture(scope="module")
def port(
    require: Callable[[str, str], None], tomo: Tomogram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        require("browser", "nginx is not installed")
    folder = tmp_path_factory.mktemp("public") / "viewer"
    export_site(tomo.collection, ["virion"], folder)
    number = _free_port()
    file = folder / "nginx.conf"
    file.write_text(nginx_configuration(folder, tomo.collection.path, number))
    # Its workers are another user's, who must reach the files.
    for path in (folder, *folder.parents, tomo.collection.path, *tomo.collection.path.parents):
        if path.owner() == file.owner() and path != path.parent:
            path.chmod(path.stat().st_mode | 0o055)
    process = subprocess.Popen([str(nginx), "-c", str(file), "-g", "daemon off;"])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", number), 1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield number
    finally:
        process.terminate()
        process.wait(60)


class Answer:
    """What came back."""

    def __init__(self, port: int, path: str, method: str, headers: dict[str, str]) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        self.status, self.headers, self.body = response.status, response.headers, response.read()
        connection.close()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    return Answer(port, path, method, headers)


def test_data_come_by_ranges_and_for_other_origins(port: int, tomo: Tomogram) -> None:
    view = f"/collection/tomograms/virion/view/{tomo.path('view').name}"
    shard = f"{view}/0/c/0/0/0/0"
    content = (tomo.path("view") / "0" / "c" / "0" / "0" / "0" / "0").read_bytes()
    part = ask(port, shard, Range="bytes=10-99", Origin="http://elsewhere.example")
    assert (part.status, part.body) == (206, content[10:100])
    assert part.headers["Access-Control-Allow-Origin"] == "*"
    assert "Content-Range" in part.headers["Access-Control-Expose-Headers"]
    assert "immutable" in part.headers["Cache-Control"]
    assert ask(port, shard, "HEAD").headers["Content-Length"] == str(len(content))
    asked = ask(port, shard, "OPTIONS", Origin="http://elsewhere.example")
    assert asked.status == 204
    assert "Range" in asked.headers["Access-Control-Allow-Headers"]
    assert ask(port, f"{view}/zarr.json").status == 200


def test_a_missing_chunk_is_an_error_and_no_zeros(port: int) -> None:
    for place, status in {"view/1/0/c/0/9/9/9": 500, "view/1/9/zarr.json": 404}.items():
        answer = ask(port, f"/collection/tomograms/virion/{place}")
        assert answer.status == status


@pytest.mark.parametrize(
    "path",
    [
        "/nginx.conf",
        "/collection/catalog.sqlite",
        "/collection/tomograms/virion/strokes/drawn.jsonl",
        "/collection/tomograms/virion/.hidden",
        "/collection/tomograms/virion/link",
        "/collection/",
        "/collection/..%2f..%2fetc/passwd",
    ],
)
def test_what_is_not_to_be_sent_is_not(port: int, path: str) -> None:
    assert ask(port, path).status in (400, 403, 404)


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_it_is_for_reading(port: int, method: str) -> None:
    for path in ("/", "/v/otzi/", "/collection/zarr.json", "/states/virion.json"):
        assert ask(port, path, method).status in (403, 405)


def test_pages_have_their_policies(port: int) -> None:
    assert "frame-ancestors 'none'" in ask(port, "/").headers["Content-Security-Policy"]
    assert "'unsafe-eval'" in ask(port, "/v/otzi/").headers["Content-Security-Policy"]
    assert ask(port, "/v/otzi/LICENSE.neuroglancer").body.lstrip().startswith(b"Apache License")


def test_a_tomogram_opens_from_the_list_and_looks_as_it_should(
    port: int, page: Browser, tomo: Tomogram
) -> None:
    page.open(f"http://127.0.0.1:{port}/")
    (card,) = page.driver.find_elements("css selector", "article")
    links = {link.text: link for link in card.find_elements("css selector", "nav a")}
    links["xy"].click()
    page.wait_for("the title", lambda: page.driver.title.startswith("virion"))
    page.wait_for("the client", lambda: bool(page.script("window.viewer !== undefined")))
    z, y, x = tomo.shape
    page.driver.execute_script(
        """
        const place = { position: [arguments[0], arguments[1], arguments[2]] };
        const { viewer } = window;
        const state = viewer.state.toJSON();
        delete state.selectedLayer;
        viewer.state.reset();
        viewer.state.restoreState({
          ...state, ...place, crossSectionScale: 0.25, showAxisLines: false, showScaleBar: false,
        });
        """,
        x // 2,
        y // 2,
        z // 2,
    )
    values = tomo.array("view")[:, z // 2, y // 2 - 8 : y // 2 + 8, x // 2 - 8 : x // 2 + 8]
    # A voxel is 4 × 4 pixels.
    wanted = slice_image(values, slice_style(tomo)).repeat(4, axis=0).repeat(4, axis=1)

    def is_there() -> bool:
        windows = np.lib.stride_tricks.sliding_window_view(page.picture(), wanted.shape)[:, :, 0]
        near = (np.abs(windows[:, :, 0, 0] - wanted[0, 0].astype(int)) <= 1).all(axis=-1)
        # No grey level of difference, but where the value lies between two to a thousandth.
        return any(
            np.abs(windows[tuple(start)].astype(int) - wanted).max() <= 1
            for start in np.argwhere(near)
        )

    page.wait_for("the slice of NumPy", is_there)
    texts = page.script("document.body.innerText")
    assert "Disconnected" not in texts
    assert "Connecting" not in texts
