"""The pages and what they ask for, as a browser on this machine sends it."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dask.array as da
import numpy as np
import pytest
from PIL import Image

from otzi.collection import open_collection
from otzi_pipelines.view_product import build_view
from otzi_viewers.pages import website as site_module
from otzi_viewers.pages.website import Site
from otzi_viewers.server import ViewServer, view_server
from otzi_viewers.shader import APPROXIMATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

SHAPE = (20, 30, 40)
VOLUME = np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.float32)
STROKES = {
    "schema": 1,
    "tomogram": "ts_001",
    "classes": ["background", "membrane", "lumen"],
    "strokes": [{"class": "membrane", "radius": 2, "points": [[5, 10, 10], [5, 12, 20]]}],
}


@pytest.fixture(scope="module")
def server() -> Iterator[ViewServer]:
    with view_server() as running:
        yield running


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(VOLUME)


@pytest.fixture
def site(server: ViewServer, tomo: Tomogram) -> Iterator[Site]:
    running = Site(server, open_collection(tomo.collection.path))
    yield running
    running.close()


class Answer:
    """What came back."""

    def __init__(self, url: str, method: str, body: bytes | None, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        connection = HTTPConnection("127.0.0.1", parts.port, timeout=20)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body, {"Host": parts.netloc, **headers})
        response = connection.getresponse()
        self.status, self.headers = response.status, response.headers
        self.body = response.read()
        connection.close()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(url: str, method: str = "GET") -> Answer:
    return Answer(url, method, None, {})


def post(url: str, document: Any = None, **headers: str) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document or {}).encode()
    return Answer(url, "POST", body, {"Content-Type": "application/json", **headers})


def _segment(tomo: Tomogram, product: str) -> None:
    values = np.random.default_rng(1).random((3, *SHAPE)).astype(np.float32)
    codes = np.rint(values / values.sum(0) * 255).astype(np.uint8)
    with tomo.write(product, dtype="u1", recipe={}, channels=tomo.classes.names) as writer:
        da.store(da.from_array(codes, chunks=(1, 64, 64, 64)), writer, lock=False)


def test_the_list_says_what_there_is(
    server: ViewServer, tomo: Tomogram, add_tomogram: Callable[..., Tomogram]
) -> None:
    _segment(add_tomogram(VOLUME, "b"), "labels/mine")
    _segment(add_tomogram(VOLUME, "c"), "probs/net")
    page = get(Site(server, tomo.collection).url)
    assert page.status == 200
    for id_, kind in {"ts_001": "raw", "b": "labelled", "c": "segmented"}.items():
        assert f'data-id="{id_}" data-kind="{kind}"' in page.text
    assert page.text.count("20 × 30 × 40 voxels<br>\n40 × 30 × 40 nm, 20 × 10 × 10\u00a0Å") == 3
    assert 'href="show/b?layout=3d"' in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src")
    assert "<script>" not in page.text
    assert "style=" not in page.text


def test_300_tomograms_are_listed(server: ViewServer, collection: Collection) -> None:
    small = np.zeros((4, 4, 4), np.int8)
    tomo = collection.add("ts_0000")
    with tomo.write(
        "raw", dtype="i1", shape=small.shape, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        writer[:, :, :] = small
    folder = collection.path / "tomograms"
    for i in range(1, 300):
        one = folder / f"ts_{i:04}" / "raw" / "1" / "0"
        one.mkdir(parents=True)
        for name in ("zarr.json", "1/zarr.json", "1/0/zarr.json"):
            target = one.parents[1] / name
            target.write_bytes((folder / "ts_0000" / "raw" / name).read_bytes())
    assert get(Site(server, collection).url).text.count("<article") == 300


def test_a_damaged_tomogram_does_not_hide_the_others(
    server: ViewServer, tomo: Tomogram, add_tomogram: Callable[..., Tomogram]
) -> None:
    other = add_tomogram(VOLUME, "other")
    (other.path("raw") / "0" / "zarr.json").unlink()
    page = get(Site(server, tomo.collection).url)
    assert 'data-id="ts_001"' in page.text
    assert '<p class="error">other: ' in page.text


def test_an_empty_collection_says_how_to_go_on(server: ViewServer, collection: Collection) -> None:
    assert "otzi ingest" in get(Site(server, collection).url).text


@pytest.mark.parametrize("has_view", [False, True])
def test_a_thumbnail_is_the_middle_slice_and_made_once(
    server: ViewServer, tomo: Tomogram, monkeypatch: pytest.MonkeyPatch, has_view: bool
) -> None:
    if has_view:
        build_view(tomo)
    made: list[Tomogram] = []
    make = site_module.thumbnail
    monkeypatch.setattr(site_module, "thumbnail", lambda t: made.append(t) or make(t))
    site = Site(server, tomo.collection)
    for _ in range(2):
        answer = get(f"{site.url}thumbnails/ts_001?1")
        assert answer.headers["Content-Type"] == "image/png"
        assert Image.open(io.BytesIO(answer.body)).size == (40, 30)
    assert len(made) == 1
    get(f"{site.url}thumbnails/ts_001?2")
    assert len(made) == 2
    assert get(f"{site.url}thumbnails/none?1").status == 404


def test_scripts_are_sent_and_nothing_beside_them(site: Site) -> None:
    for name, kind in {"draw.js": "javascript", "otzi.css": "text/css"}.items():
        answer = get(f"{site.url}static/{name}")
        assert answer.status == 200
        assert kind in answer.headers["Content-Type"]
    for path in ("static/../site.py", "static/%2e%2e/site.py", "static/", "static/none.js"):
        assert get(site.url + path).status in (403, 404)


def test_a_page_shows_a_tomogram_and_what_can_be_drawn(site: Site, tomo: Tomogram) -> None:
    _segment(tomo, "labels/mine")
    page = get(f"{site.url}show/ts_001?layout=3d&segmentation=labels/mine")
    assert page.status == 200
    assert get(site.workspace("ts_001").viewer.get_viewer_url()).status == 200
    assert site.workspace("ts_001").viewer.get_viewer_url() in page.text
    facts = json.loads(page.text.split('id="facts">')[1].split("</script>")[0])
    assert facts["classes"] == list(tomo.classes.names)
    assert facts["status"]["segmentation"] == "labels/mine"
    assert facts["status"]["layout"] == "3d"
    assert get(f"{site.url}show/none").status == 404
    bad = get(f"{site.url}show/ts_001?layout=round")
    assert (bad.status, bad.text) == (
        400,
        "layout 'round': there are 4panel, xy, xz, yz, 3d",
    )


def test_strokes_are_kept_before_the_answer(site: Site, tomo: Tomogram) -> None:
    get(f"{site.url}show/ts_001")
    api = f"{site.url}api/ts_001/"
    assert post(api + "draw", STROKES).json["n_strokes"] == 1
    journal = tomo.folder / "strokes" / "drawn.jsonl"
    assert json.loads(journal.read_text())["strokes"] == [
        {"class": "membrane", "radius": 2.0, "points": [[5.0, 10.0, 10.0], [5.0, 12.0, 20.0]]}
    ]
    assert post(api + "undo").json["n_strokes"] == 0
    assert post(api + "undo").json["n_strokes"] == 0
    outside = STROKES | {"strokes": [{"class": "lumen", "radius": 1, "points": [[99, 0, 0]]}]}
    answer = post(api + "draw", outside)
    assert (answer.status, "is outside the volume" in answer.text) == (400, True)
    assert post(api + "draw", {"strokes": []}).status == 400


def test_only_json_of_this_origin_and_of_some_size_is_taken(site: Site) -> None:
    get(f"{site.url}show/ts_001")
    url = f"{site.url}api/ts_001/draw"
    assert post(url, STROKES, **{"Content-Type": "text/plain"}).status == 415
    assert post(url, STROKES, Origin="http://evil.example").status == 403
    assert post(url, b"{").status == 400
    assert post(url, b"[1]").status == 400
    assert post(url, STROKES | {"more": "x" * 1_000_001}).status == 413
    assert get(url).status == 405
    assert Answer(url, "PUT", b"{}", {"Content-Type": "application/json"}).status == 405
    assert post(f"{site.url}api/ts_001/erase").status == 404
    assert post(f"{site.url}api/other/undo").text == "other is not open: reload the page"
    token = urlsplit(site.url).path.split("/")[2]
    assert post(url.replace(token, "x" * len(token)), STROKES).status == 404
    assert post(f"{site.url}api/ts_001/status").json["n_strokes"] == 0


def test_what_is_saved_is_what_the_page_had(site: Site, tomo: Tomogram) -> None:
    _segment(tomo, "probs/net")
    get(f"{site.url}show/ts_001?segmentation=probs/net")
    viewer = site.workspace("ts_001").viewer

    def change(state: Any) -> None:
        state.layers["slices"].layer.shader_controls = {"a_membrane": 0.25, "show_lumen": False}
        state.layers["3-D"].layer.shader_controls = {"color_lumen": "#00ff40"}

    viewer.retry_txn(change)
    assert post(f"{site.url}api/ts_001/save").status == 200
    styles = tomo.attributes("styles/probs.net")["styles"]
    assert (styles["slices"]["a_membrane"], styles["slices"]["show_lumen"]) == (0.25, False)
    assert styles["volume"]["color_lumen"] == "#00ff40"
    (slices,) = (x for x in viewer.state.to_json()["layers"] if x["name"] == "slices")
    assert "a_membrane slider(min=0, max=0.99, default=0.25" in slices["shader"]


def test_what_is_saved_is_also_what_the_approximate_layer_had(site: Site, tomo: Tomogram) -> None:
    _segment(tomo, "probs/net")
    build_view(tomo, "net")
    shutil.rmtree(tomo.path("view") / "overview")
    get(f"{site.url}show/ts_001")
    viewer = site.workspace("ts_001").viewer

    def change(state: Any) -> None:
        layer = state.layers[f"3-D, {APPROXIMATE}"].layer
        layer.shader_controls = {"color_lumen": "#00ff40"}

    viewer.retry_txn(change)
    assert post(f"{site.url}api/ts_001/save").status == 200
    assert tomo.attributes("styles/probs.net")["styles"]["volume"]["color_lumen"] == "#00ff40"


def test_images_that_are_computed_are_read_like_others(site: Site, tomo: Tomogram) -> None:
    _segment(tomo, "probs/net")
    get(f"{site.url}show/ts_001?segmentation=probs/net")
    (slices,) = (x for x in site.workspace("ts_001").viewer.state.layers if x.name == "slices")
    url = slices.layer.source[0].url.removesuffix("/|zarr3:")
    assert "/stacked/" in url
    assert get(f"{url}/zarr.json").json["node_type"] == "group"
    assert get(f"{url}/0/zarr.json").json["shape"] == [4, *SHAPE]
    chunk = get(f"{url}/0/c/0/0/0/0")
    assert len(chunk.body) == 4 * 64**3
    for path in ("/0/c/0/0/0/1", "/9/zarr.json", "/0/c/1/0/0/0", "/c/", "/none"):
        assert get(url + path).status == 404
    assert get(f"{url}/zarr.json", "HEAD").status == 405
    assert get(url.replace("probs/net/1", "probs/net/2") + "/zarr.json").status == 404


def test_what_waits_when_the_viewer_ends_is_refused(site: Site) -> None:
    freed = threading.Event()
    busy = [site.threads.submit(freed.wait) for _ in range(site_module._THREADS)]
    with ThreadPoolExecutor(1) as asker:
        waiting = asker.submit(get, site.url)
        while not site.threads._work_queue.qsize():
            time.sleep(0.01)
        site.close()
        assert waiting.result().status == 503
        assert get(site.url).status == 503
        freed.set()
    assert all(one.result() for one in busy)
