"""Several tomograms, some of them at the same time: what fails for one does not stop the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any

from otzi.errors import VerificationError
from otzi.events import Event, Listener, Warned
from otzi_pipelines.segment.report import read_report
from otzi_pipelines.segment.segmentation import segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.execute import Executor
    from otzi.tiles.ensemble import Ensemble
    from otzi.tiles.infer import TorchModel
    from otzi.tomogram import Tomogram

__all__ = ["segment_several"]


def segment_several(
    tomograms: Sequence[Tomogram],
    model: TorchModel | Ensemble,
    *,
    name: str,
    n_at_once: int,
    executor: Executor | None,
    listen: Listener,
    **how: Any,
) -> dict[str, dict[str, Any]]:
    """Segment tomograms, and give what became of each as plain JSON, by id.

    One whose density is damaged is left out with its reason. Where several are under way on a
    cluster, the first goes first, so that it is done before the others.

    Parameters
    ----------
    tomograms
        Of a collection open for writing.
    model, name, executor, how
        See `otzi_pipelines.segment.segmentation.segment`.
    n_at_once
        Tomograms at the same time.
    listen
        Told of everything, by one at a time.

    Raises
    ------
    OtziError
        Whatever concerns the others, too: what is under way is ended, and goes on next time.
    """
    lock = Lock()

    def tell(event: Event) -> None:
        with lock:
            listen(event)

    def one(position: int) -> dict[str, Any]:
        tomo = tomograms[position]
        try:
            made = segment(
                tomo, model, name=name, executor=executor, priority=-position, listen=tell, **how
            )
        except VerificationError as error:
            tell(Warned(f"{tomo.id} is left out: {error}"))
            return {"made": False, "error": str(error)}
        return {
            "made": made,
            "path": str(tomo.path(f"probs/{name}")),
            "report": str(tomo.path(f"reports/{name}")),
            "run": read_report(tomo, name),
        }

    positions = range(len(tomograms))
    if n_at_once == 1:  # in this thread, which Ctrl-C reaches
        results = [one(position) for position in positions]
    else:
        with ThreadPoolExecutor(n_at_once) as pool:
            try:
                results = list(pool.map(one, positions))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                if executor is not None:
                    executor.close()
                raise
    return {tomo.id: result for tomo, result in zip(tomograms, results, strict=True)}
