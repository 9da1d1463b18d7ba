"""What a run of `otzi segment` made of a tomogram: checked numbers, published beside the result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import otzi
from otzi.events import Event, Finished, Listener, ignore
from otzi.memory import PeakMemory, resident_memory_bytes
from otzi_pipelines.ramps.picture import save_ramps_picture
from otzi_pipelines.ramps.stored import read_ramps
from otzi_pipelines.segment.report_page import report_page
from otzi_pipelines.segment.slices_picture import save_slices

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from otzi.store.location import Location
    from otzi.tomogram import Tomogram
    from otzi_pipelines.segment.observation import Observation

__all__ = [
    "RunMeter",
    "RunSettings",
    "is_reported",
    "publish_report",
    "read_report",
    "run_document",
]

_JSON, _PAGE = "report.json", "report.html"
_SLICES, _CURVES = "slices.png", "thresholds.png"


@dataclass(slots=True)
class RunMeter:
    """A listener that keeps what a run took; it passes all events on."""

    listen: Listener = ignore
    seconds: dict[str, float] = field(default_factory=dict)
    """Of every piece of work that ended, in that order."""
    memory: PeakMemory = field(default_factory=PeakMemory)
    """Of the process, from the beginning of the run."""
    start_memory_bytes: int = field(default_factory=resident_memory_bytes)
    """Of the process, before the run."""

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, Finished):
            self.seconds[event.name] = self.seconds.get(event.name, 0.0) + event.seconds
        self.listen(event)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run was to be done."""

    model: str
    """Digest of what decides the probabilities."""
    tile: int
    """Side in voxels."""
    overlap: int
    """In voxels."""
    dtype: str
    """As stored."""
    workers: int
    """Tiles at the same time."""
    device: str
    """``cpu`` or ``cuda``."""
    memory_bytes: int | None = None
    """What the process was allowed to take in all; None if it was not bounded."""


def run_document(
    tomo: Tomogram,
    name: str,
    settings: RunSettings,
    seen: Observation,
    meter: RunMeter,
    n_inferred: int,
) -> dict[str, Any]:
    """Give the report of a run that published ``probs/NAME`` and its ramps, as plain JSON.

    `n_inferred` tiles were inferred in it: fewer than the plan has, where it went on with an
    interrupted one, or found everything done.
    """
    product, n_tiles = f"probs/{name}", seen.n_cells
    ramps = tomo.attributes(f"ramps/{name}")
    peak, allowed = meter.memory.peak_bytes, settings.memory_bytes
    return {
        "tomogram": tomo.id,
        "product": product,
        "shape": list(tomo.shape),
        "spacing_angstrom": list(tomo.spacing_angstrom),
        "settings": asdict(settings),
        **seen.to_json(),
        "tiles": {
            "n_tiles": n_tiles,
            "inferred": n_inferred,
            "inferred_per_tile": n_inferred / n_tiles,
        },
        "memory": {
            "peak_bytes": peak,
            "is_since_start": meter.memory.is_since_start,
            "start_bytes": meter.start_memory_bytes,
            "allowed_bytes": allowed,
            "is_within": None if allowed is None else peak <= allowed,
        },
        "seconds": {stage: round(seconds, 3) for stage, seconds in meter.seconds.items()},
        "ramps": {kind: entry["low"] for kind, entry in ramps["ramps"].items()},
        "slab": ramps["slab"],
        "digests": {
            "model": settings.model,
            "raw": tomo.digest("raw"),
            product: tomo.digest(product),
        },
        "otzi_version": otzi.__version__,
    }


def publish_report(tomo: Tomogram, name: str, document: Mapping[str, Any]) -> Location:
    """Publish ``reports/NAME`` of a tomogram, and give the page for people.

    The product holds ``report.json``, ``report.html`` and the pictures that the page shows. It
    tells of one run, with its times, so that two runs of the same result differ in it.
    """
    product, probs = f"reports/{name}", f"probs/{name}"
    recipe = _recipe(has_legacy="legacy" in document)
    with tomo.stage(product, recipe=recipe, parents=(probs,)) as staging:
        folder: Path = staging.path
        (folder / _JSON).write_text(json.dumps(document, indent=2) + "\n")
        save_slices(tomo, probs, folder / _SLICES)
        save_ramps_picture(tomo, read_ramps(tomo, name), folder / _CURVES)
        page = report_page(document, slices=_SLICES, curves=_CURVES)
        (folder / _PAGE).write_text(page, encoding="utf-8")
    return tomo.path(product) / _PAGE


def is_reported(tomo: Tomogram, name: str, *, has_legacy: bool = False) -> bool:
    """Tell whether there is a report of ``probs/NAME`` as it is, with the comparison if wished."""
    return any(
        tomo.is_made(f"reports/{name}", _recipe(has_legacy=one), (f"probs/{name}",))
        for one in {True, has_legacy}
    )


def read_report(tomo: Tomogram, name: str) -> dict[str, Any]:
    """Give the document that ``reports/NAME`` holds.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    found: dict[str, Any] = json.loads((tomo.path(f"reports/{name}") / _JSON).read_text())
    return found


def _recipe(*, has_legacy: bool) -> dict[str, Any]:
    return {"verb": "segment", "legacy": has_legacy}
