"""The pages as HTML.  Pure.

They have no script or style of their own text: the policy of `policy.PAGE_HEADERS` lets files of
``static`` in, and nothing else. What a script needs to know is JSON in the page.
"""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from otzi_viewers.state import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otzi.classes import ClassTable
    from otzi_viewers.pages.listing import Entry

__all__ = ["KEYS", "color_square", "list_page", "workspace_page"]

_LAYOUT_NAMES = {"4panel": "4 panels", "3d": "3-D", "xy": "xy", "xz": "xz", "yz": "yz"}
_TOOLS = {
    "move": ("Move", "m"),
    "dab": ("Dab", "d"),
    "freehand": ("Freehand", "f"),
    "line": ("Line", "i"),
    "polyline": ("Polyline", "p"),
}
KEYS = {
    **{key: f"{name.lower()}: tool" for name, key in _TOOLS.values()},
    "q, w": "class before, class after",
    "[, ]": "radius smaller, larger",
    "Enter, double click": "end the polyline",
    "Esc": "drop what is begun",
    "u": "undo the last stroke",
    "j": "pseudo-labels of what is drawn",
    "g": "save ramps, colours, opacities",
    "space": "one panel, four panels",
    "wheel": "through slices; with control, zoom",
    "right click": "centre there",
    "1 … 9": "layer on, off",
    "s": "slices in 3-D on, off",
    "a, b": "axes, scale bar",
    "h": "all keys of Neuroglancer",
}
"""What the keys do, as the page lists it."""


def color_square(color: str) -> str:
    """Give a small square of a colour, as SVG."""
    return f'<svg viewBox="0 0 10 10"><rect width="10" height="10" fill="{color}"/></svg>'


def _shown(id_: str, layout: str) -> str:
    return f"show/{id_}" + (f"?layout={layout}" if layout else "")


def _picture(entry: Entry) -> str:
    return f"thumbnails/{entry.id}?{entry.version}"


def list_page(
    name: str,
    entries: Sequence[Entry],
    damaged: Sequence[str],
    *,
    address: Callable[[str, str], str] = _shown,
    picture: Callable[[Entry], str] = _picture,
) -> str:
    """Give the page that lists the tomograms of a collection.

    Parameters
    ----------
    name
        Of the collection.
    entries
        The tomograms.
    damaged
        What is wrong with others.
    address
        Gives the link to a tomogram in a layout, or in the usual one if that is empty.
    picture
        Gives the link to its thumbnail.
    """
    cards = "\n".join(_card(entry, address, picture) for entry in entries)
    counts = {kind: sum(e.progress == kind for e in entries) for kind in _PROGRESS}
    filters = "".join(
        f'<label><input type="checkbox" class="kind" value="{kind}" checked> {kind} {n}</label> '
        for kind, n in counts.items()
    )
    warnings = "".join(f'<p class="error">{escape(text)}</p>' for text in damaged)
    nothing = (
        ""
        if entries
        else "<p>There are no tomograms yet: <code>otzi ingest COLLECTION FILE.mrc</code></p>"
    )
    body = f"""<header><h1>{escape(name)}</h1>
<input id="search" type="search" placeholder="find a tomogram" aria-label="find a tomogram">
{filters}<span id="found">{_tomograms(len(entries))}</span></header>
{warnings}{nothing}<main class="cards">
{cards}
</main>"""
    return _document(f"{name} · otzi", "list", body, "static/", ("list.js",))


_PROGRESS = ("raw", "labelled", "segmented")


def _card(entry: Entry, address: Callable[[str, str], str], picture: Callable[[Entry], str]) -> str:
    id_, link = escape(entry.id), escape(address(entry.id, ""))
    links = " ".join(
        f'<a href="{escape(address(entry.id, layout))}">{_LAYOUT_NAMES[layout]}</a>'
        for layout in LAYOUTS
    )
    return f"""<article data-id="{id_}" data-kind="{entry.progress}">
<a href="{link}"><img src="{escape(picture(entry))}" loading="lazy" alt=""></a>
<h2><a href="{link}">{id_}</a> <span class="{entry.progress}">{entry.progress}</span></h2>
<p title="{escape(", ".join(entry.products))}">{_extent(entry.shape)} voxels<br>
{_size(entry.shape, entry.spacing_angstrom)}, {_spacing(entry.spacing_angstrom)}</p>
<nav>{links}</nav>
</article>"""


def workspace_page(
    tomogram: str,
    facts: Mapping[str, Any],
    classes: ClassTable,
    viewer_url: str,
    drawing: str,
) -> str:
    """Give the page of an open tomogram: Neuroglancer in a frame, and tools beside it.

    Parameters
    ----------
    tomogram
        Its id.
    facts
        For the script: ``shape``, ``spacing_angstrom`` and the workspace's status.
    classes
        What can be drawn.
    viewer_url
        Of Neuroglancer's page.
    drawing
        Of the thresholds, HTML; empty where there are none.
    """
    known = {**facts, "tomogram": tomogram, "classes": list(classes.names)}
    tools = "".join(
        f'<button type="button" class="tool" data-tool="{tool}" title="key {key}">{name}</button>'
        for tool, (name, key) in _TOOLS.items()
    )
    colors = "".join(
        f'<button type="button" class="class" data-class="{c.name}">'
        f"{color_square(c.color)}{c.name}</button>"
        for c in classes
    )
    layouts = "".join(
        f'<button type="button" class="layout" data-layout="{layout}">{_LAYOUT_NAMES[layout]}'
        "</button>"
        for layout in LAYOUTS
    )
    keys = "".join(f"<dt>{escape(key)}</dt><dd>{escape(does)}</dd>" for key, does in KEYS.items())
    curves = f"<h2>Threshold of each slice, 0 to 1</h2>{drawing}" if drawing else ""
    shape, spacing = facts["shape"], facts["spacing_angstrom"]
    extent = f"{_extent(shape)} voxels<br>{_size(shape, spacing)}, {_spacing(spacing)}"
    body = f"""<iframe id="viewer" src="{escape(viewer_url)}" title="{escape(tomogram)}"></iframe>
<aside>
<p><a href="../">all tomograms</a></p>
<h1>{escape(tomogram)}</h1><p>{extent}</p>
<p>{layouts}</p>
<label>segmentation <select id="segmentation"></select></label>
<label>beside it <select id="beside"></select></label>
<p><button type="button" id="sliders">Sliders</button></p>
<h2>Draw</h2>
<p>{tools}</p><p>{colors}</p>
<label>radius <input id="radius" type="range" min="0" max="20" step="0.5" value="2">
<output id="radius-voxels">2</output> voxels</label>
<p><button type="button" id="undo">Undo</button> <span id="strokes"></span></p>
<p><button type="button" id="label">Pseudo-labels</button></p>
<p id="job" role="status"></p>
<section id="curves">{curves}</section>
<h2>Keep</h2>
<p><button type="button" id="save">Save view</button>
<button type="button" id="figure">Figure</button></p>
<p id="message" role="alert"></p>
<ul id="problems" role="alert"></ul>
<details><summary>Keys</summary><dl>{keys}</dl></details>
</aside>
<script type="application/json" id="facts">{_in_page(known)}</script>"""
    scripts = ("draw.js", "watch.js", "workspace.js")
    return _document(f"{tomogram} · otzi", "workspace", body, "../static/", scripts)


def _document(title: str, kind: str, body: str, static: str, scripts: Sequence[str]) -> str:
    loaded = "".join(f'<script src="{static}{name}" defer></script>' for name in scripts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<link rel="stylesheet" href="{static}otzi.css">{loaded}</head>
<body class="{kind}">
{body}
</body></html>
"""


def _in_page(document: Mapping[str, Any]) -> str:
    """Give JSON that cannot end the element it is in."""
    return json.dumps(document).replace("<", "\\u003c")


def _tomograms(n: int) -> str:
    return "1 tomogram" if n == 1 else f"{n} tomograms"


def _extent(shape: Sequence[int]) -> str:
    return " × ".join(str(n) for n in shape)


def _size(shape: Sequence[int], spacing_angstrom: Sequence[float]) -> str:
    sides = (n * v / 10 for n, v in zip(shape, spacing_angstrom, strict=True))
    return " × ".join(f"{side:.0f}" for side in sides) + " nm"


def _spacing(spacing_angstrom: Sequence[float]) -> str:
    different = dict.fromkeys(f"{v:g}" for v in spacing_angstrom)
    values = different if len(different) == 1 else [f"{v:g}" for v in spacing_angstrom]
    return " × ".join(values) + "\u00a0Å"
