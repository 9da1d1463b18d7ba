"""Sums over a whole volume of what two segmentations say, block by block, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from otzi.box import tile
from otzi.events import Listener, ignore
from otzi.metrics import Agreement
from otzi.parallel import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi_pipelines.evaluate.segmentation import Segmentation

__all__ = ["agreement_of", "summed"]

_BLOCK_VOXELS = 128


class _Sum(Protocol):
    def __add__(self, other: Any, /) -> Self: ...


S = TypeVar("S", bound=_Sum)


def agreement_of(
    prediction: Segmentation,
    truth: Segmentation,
    *,
    workers: int | None = None,
    listen: Listener = ignore,
) -> Agreement:
    """Give the agreement over all voxels of which both say something.

    Parameters
    ----------
    prediction, truth
        Of the same classes and shape.
    workers
        Blocks at the same time; one for each core if None. The sums are the same to the bit.
    listen
        Told of every block.
    """
    return summed(
        Agreement.measure,
        Agreement.none(len(prediction.classes)),
        prediction,
        truth,
        name=f"evaluate {prediction.tomo.id}",
        workers=workers,
        listen=listen,
    )


def summed(
    measure: Callable[[NDArray[Any], NDArray[Any]], S],
    start: S,
    prediction: Segmentation,
    truth: Segmentation,
    *,
    name: str,
    workers: int | None = None,
    listen: Listener = ignore,
) -> S:
    """Give `start` and what `measure` makes of each block, added in the order of the blocks.

    Parameters
    ----------
    measure
        Given the ``(c, z, y, x)`` shares of both in a block.
    start
        Where the sum begins.
    prediction, truth, workers, listen
        Those of `agreement_of`.
    name
        Of the work, for the listener.
    """
    chunk = prediction.array.chunk[-1]
    side = max(1, _BLOCK_VOXELS // chunk) * chunk
    boxes = list(tile(prediction.shape, (side, side, side)))

    def of_block(box: Box) -> S:
        return measure(prediction.read(box), truth.read(box))

    total = start
    for part in in_threads(of_block, boxes, name, "blocks", listen, workers):
        total = total + part
    return total
