"""A figure of what an open page shows: a PNG that says from what, and how, it was made."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import otzi
from otzi_viewers.page_state import change_state
from otzi_viewers.snapshot import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi_viewers.snapshot import Snapshot

__all__ = ["FIGURE_PIXELS", "figure_png", "make_figure"]

FIGURE_PIXELS = (1200, 900)
_TIMEOUT_SECONDS = 120.0
_SIDE_PANELS = ("selectedLayer", "layerListPanel", "selection", "helpPanel", "settingsPanel")
"""Parts of the state that take room from the picture."""


def make_figure(
    viewer: Any, source: Mapping[str, Any], pixels: tuple[int, int] = FIGURE_PIXELS
) -> bytes:
    """Give the panels of a page as a PNG of always the same size, whatever the window's.

    The same state and data give the same bytes in one browser.

    Parameters
    ----------
    viewer
        Of Neuroglancer; a page of it is open.
    source
        What is shown, as plain JSON: becomes the text ``otzi source``.
    pixels
        Width and height.

    Raises
    ------
    CorruptShard, TemporaryFailure
        As `take_snapshot` does.
    """
    before = viewer.config_state.state
    panels = {k: v for k, v in viewer.shared_state.raw_state.items() if k in _SIDE_PANELS}
    change_state(viewer, lambda state: {k: v for k, v in state.items() if k not in panels})
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False
        config.show_panel_borders = False
        config.viewer_size = pixels
    try:
        shot = take_snapshot(viewer, _TIMEOUT_SECONDS, pixels)
        state = viewer.state.to_json()
    finally:
        change_state(viewer, lambda state: state | panels)
        with viewer.config_state.txn() as config:
            config.show_ui_controls = before.show_ui_controls
            config.show_panel_borders = before.show_panel_borders
            config.viewer_size = before.viewer_size
    return figure_png(shot, state, source)


def figure_png(shot: Snapshot, state: Mapping[str, Any], source: Mapping[str, Any]) -> bytes:
    """Give a snapshot as a PNG with texts: ``otzi state``, ``otzi source`` and ``otzi levels``.

    ``otzi digest`` is the SHA-256 of these. There is no time in it.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    levels = {f"{layer}: {kind}": spacing for (layer, kind), spacing in shot.spacings.items()}
    texts = {
        "otzi state": json.dumps(_portable(state), sort_keys=True),
        "otzi source": json.dumps(dict(source), sort_keys=True),
        "otzi levels": json.dumps(levels, sort_keys=True),
    }
    digest = hashlib.sha256("\n".join(texts.values()).encode()).hexdigest()
    info = PngInfo()
    info.add_text("Software", f"otzi {otzi.__version__}")
    for name, text in (*texts.items(), ("otzi digest", digest)):
        info.add_itxt(name, text)
    file = io.BytesIO()
    Image.fromarray(shot.pixels).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _portable(state: Mapping[str, Any]) -> dict[str, Any]:
    """Give the state without addresses: they hold tokens, and are others the next time."""
    document = json.loads(json.dumps(dict(state)))
    for layer in document.get("layers", ()):
        source = layer.get("source")
        if isinstance(source, dict):
            source["url"] = _place(source.get("url", ""))
        else:
            layer["source"] = _place(str(source))
    return dict(document)


def _place(url: str) -> str:
    """Give what follows the token in an address."""
    return url.split("/", 5)[-1] if url.startswith("http") else url.partition(":")[0]
