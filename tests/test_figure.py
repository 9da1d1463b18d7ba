"""A figure says what it shows, and says the same each time."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
from PIL import Image

from otzi_viewers.figure import figure_png
from otzi_viewers.snapshot import Snapshot

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
SHOT = Snapshot(PIXELS, {("slices", "ImageRenderLayer"): "784pm"})
SOURCE = {"tomogram": "ts_001", "digests": {"raw": "ab"}, "tables": ["12"]}


def state(token: str) -> dict[str, object]:
    return {
        "position": [1, 2, 3],
        "layers": [
            {"name": "a", "source": {"url": f"http://127.0.0.1:1/data/{token}/tomograms/t/raw/1"}},
            {"name": "b", "source": f"python://volume/{token}"},
        ],
    }


def test_it_carries_its_state_level_and_table() -> None:
    png = figure_png(SHOT, state("secret"), SOURCE)
    image = Image.open(io.BytesIO(png))
    np.testing.assert_array_equal(np.asarray(image), PIXELS)
    texts = image.text
    assert json.loads(texts["otzi source"]) == SOURCE
    assert json.loads(texts["otzi levels"]) == {"slices: ImageRenderLayer": "784pm"}
    shown = json.loads(texts["otzi state"])
    assert shown["position"] == [1, 2, 3]
    assert shown["layers"][0]["source"]["url"] == "tomograms/t/raw/1"
    parts = [texts[name] for name in ("otzi state", "otzi source", "otzi levels")]
    assert texts["otzi digest"] == hashlib.sha256("\n".join(parts).encode()).hexdigest()


def test_it_is_the_same_each_time_and_holds_no_token() -> None:
    first = figure_png(SHOT, state("secret"), SOURCE)
    assert first == figure_png(SHOT, state("another"), SOURCE)
    assert b"secret" not in first
    assert first != figure_png(SHOT, state("secret") | {"position": [1, 2, 4]}, SOURCE)
