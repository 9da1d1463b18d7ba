"""What is published together with probabilities: ramps, view and the report of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otzi.events import Noted, Warned
from otzi.memory import format_bytes
from otzi.parallel import in_threads
from otzi.tiles.plan import TilePlan
from otzi_pipelines.ramps.estimate import thresholds_of
from otzi_pipelines.ramps.stored import are_current, publish_ramps
from otzi_pipelines.segment.legacy import compare_with_legacy
from otzi_pipelines.segment.observe import Observer
from otzi_pipelines.segment.report import (
    is_reported,
    publish_report,
    read_report,
    run_document,
)
from otzi_pipelines.view_product import build_view

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi.box import Box
    from otzi.events import Listener
    from otzi.tiles.infer import Model
    from otzi.tomogram import Tomogram
    from otzi_pipelines.segment.report import RunMeter, RunSettings

__all__ = ["observe_stored", "publish_companions"]


def publish_companions(
    tomo: Tomogram,
    name: str,
    settings: RunSettings,
    meter: RunMeter,
    observer: Observer | None = None,
    *,
    n_inferred: int = 0,
    with_view: bool = False,
    legacy_model: Model | None = None,
) -> None:
    """Publish ``ramps/NAME`` and ``reports/NAME``, and ``view`` if wished, as far as they lack.

    Parameters
    ----------
    tomo
        With ``probs/NAME``, in a collection open for writing.
    name
        Of the probabilities.
    settings, meter
        Of the run.
    observer
        Who saw all the cells as they were written; None if they were there before: then they are
        read, if that is needed.
    n_inferred
        Tiles that were inferred in this run.
    with_view
        Whether to make the product that the viewer reads.
    legacy_model
        The model of the run, to compare with the published way of using it.
    """
    is_new = observer is not None or not is_reported(tomo, name)
    lacks_ramps = not are_current(tomo, name)
    if observer is None and (is_new or lacks_ramps):
        observer = observe_stored(tomo, name, settings, meter)
    if observer is not None and lacks_ramps:
        channels = tomo.image(f"probs/{name}").channels or ()
        publish_ramps(tomo, name, thresholds_of(channels, observer.histograms))
    if with_view:
        build_view(tomo, name, meter)
    if observer is not None and is_new:
        document = run_document(tomo, name, settings, observer.observation(), meter, n_inferred)
        if document["memory"]["is_within"] is False:
            meter(Warned(_excess(tomo, document["memory"])))
    elif legacy_model is not None and not is_reported(tomo, name, has_legacy=True):
        document = read_report(tomo, name)
    else:
        return
    if legacy_model is not None:
        document["legacy"] = compare_with_legacy(
            tomo,
            legacy_model,
            name,
            tile=settings.tile,
            overlap=settings.overlap,
            memory_bytes=settings.memory_bytes,
        )
    page = publish_report(tomo, name, document)
    meter(Noted(f"{tomo.id}: report {page}"))


def _excess(tomo: Tomogram, memory: Mapping[str, int]) -> str:
    peak, allowed = (format_bytes(memory[key]) for key in ("peak_bytes", "allowed_bytes"))
    return f"{tomo.id} took {peak}, --memory is {allowed}: allow more next time, and report it"


def observe_stored(tomo: Tomogram, name: str, settings: RunSettings, listen: Listener) -> Observer:
    """Give an observer of probabilities that are stored, read cell by cell."""
    product = f"probs/{name}"
    array, channels = tomo.array(product), tomo.image(product).channels or ()
    plan = TilePlan(tomo.shape, settings.tile, settings.overlap)
    observer = Observer(tomo.shape, channels, array.dtype, plan)

    def see(cell: Box) -> None:
        observer.see(cell, array[(slice(None), *cell.slices)])

    for _ in in_threads(see, [*map(plan.cell, plan.sweep)], "observe", "cells", listen):
        pass
    return observer
