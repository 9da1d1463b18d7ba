"""The report of a run as a page for people.  Pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from otzi.memory import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["report_page"]

_SEAM_RATIO = 1.05
"""Above that the page marks a ratio: data without seams stay within a few hundredths of 1."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #202020; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: left;
       border-bottom: 1px solid #ddd; } td.number { text-align: right;
       font-variant-numeric: tabular-nums; }
.bad { color: #b00020; font-weight: 600; } img { max-width: 100%; } code { font-size: .85em; }
"""

Row = tuple[str, str]


def report_page(document: Mapping[str, Any], *, slices: str, curves: str) -> str:
    """Give the HTML of a report: `otzi_pipelines.segment.report.run_document`.

    `slices` and `curves` are the addresses of the pictures, relative to the page.
    """
    title = f"{document['product']} of {document['tomogram']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _table(_overview(document)),
        "<h2>Middle slices</h2>",
        f'<p><img src="{escape(slices)}" alt="density, and the classes over it"></p>',
        "<h2>Left limits</h2>",
        f'<p><img src="{escape(curves)}" alt="threshold of every slice"></p>',
        "<h2>Seams</h2>",
        "<p>Mean |difference| of neighbouring voxels across the planes where other tiles begin to "
        "contribute, and across all other planes. Without seams their ratio is about 1.</p>",
        _seam_table(document["seams"]),
    ]
    if "legacy" in document:
        parts += ["<h2>The published way, for comparison</h2>", _table(_legacy(document))]
    parts += [
        "<h2>Time</h2>",
        _table((name, f"{seconds:.1f} s") for name, seconds in document["seconds"].items()),
        "<h2>Digests</h2>",
        _table(document["digests"].items(), as_code=True),
        f"<p>otzi {escape(document['otzi_version'])}</p>",
    ]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _overview(document: Mapping[str, Any]) -> list[Row]:
    settings, tiles, memory = document["settings"], document["tiles"], document["memory"]
    coverage, sums, slab = document["coverage"], document["sum"], document["slab"]
    shape = " × ".join(map(str, document["shape"]))
    spacing = " × ".join(f"{v:g}" for v in document["spacing_angstrom"])
    peak, allowed = memory["peak_bytes"], memory["allowed_bytes"]
    bound = "not bounded"
    if allowed is not None:
        more = "" if memory["is_within"] else "MORE than the "
        bound = f"{more}{format_bytes(allowed)} allowed"
    # Where the system cannot count anew, tomograms before this one are part of the peak.
    since = "" if memory["is_since_start"] else " since the process began"
    top, bottom = slab["margin_angstrom"]
    return [
        ("volume (z, y, x)", f"{shape} voxels of {spacing} Å"),
        (
            "tiles",
            f"{tiles['n_tiles']} of {settings['tile']} voxels, overlap {settings['overlap']}; "
            f"inferred in this run: {tiles['inferred']}",
        ),
        ("coverage", f"{coverage['share']:.0%}, {coverage['covered_voxels']:,} voxels, each once"),
        (
            "sum of a voxel's classes",
            f"1 within {sums['largest_error']:.2g}; storing as {settings['dtype']} allows "
            f"{sums['tolerance']:.2g}",
        ),
        ("left limits", ", ".join(f"{k} {v:.3f}" for k, v in document["ramps"].items())),
        (
            "slab",
            f"slices {slab['start']} to {slab['stop'] - 1}, margins {top:.0f} Å and {bottom:.0f} Å",
        ),
        ("peak memory of this process", f"{format_bytes(peak)}{since}, {bound}"),
        ("run on", f"{settings['device']}, tiles at the same time: {settings['workers']}"),
    ]


def _legacy(document: Mapping[str, Any]) -> list[Row]:
    legacy = document["legacy"]
    return [
        ("voxels without a prediction", f"{legacy['uncovered_share']:.1%}"),
        ("voxels that do not sum to 1", f"{legacy['wrong_sum_share']:.1%}"),
        ("voxels of another most probable class", f"{legacy['other_class_share']:.1%}"),
        ("largest step across a plane, over the median one", _ratio(legacy["largest_step"])),
        ("the same of what is stored", _ratio(legacy["largest_step_here"])),
    ]


def _seam_table(seams: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for seam in seams:
        ratio = seam["ratio"]
        mark = ' class="number bad"' if ratio and ratio > _SEAM_RATIO else ' class="number"'
        numbers = "".join(
            f'<td class="number">{"–" if value is None else f"{value:.5f}"}</td>'
            for value in (seam["at_tiles"], seam["elsewhere"])
        )
        rows.append(
            f"<tr><td>{seam['axis']}</td><td>{escape(seam['class'])}</td>{numbers}"
            f"<td{mark}>{_ratio(ratio)}</td></tr>"
        )
    head = "".join(
        f"<th>{name}</th>" for name in ("axis", "class", "at tile planes", "elsewhere", "ratio")
    )
    return f"<table><tr>{head}</tr>\n" + "\n".join(rows) + "\n</table>"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(rows: Iterable[Row], *, as_code: bool = False) -> str:
    opening, closing = ("<code>", "</code>") if as_code else ("", "")
    lines = (
        f"<tr><td>{escape(name)}</td><td>{opening}{escape(value)}{closing}</td></tr>"
        for name, value in rows
    )
    return "<table>\n" + "\n".join(lines) + "\n</table>"
