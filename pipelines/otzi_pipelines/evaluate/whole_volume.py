"""The agreement of two segmentations over a whole volume, block by block, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otzi.box import tile
from otzi.events import Listener, ignore
from otzi.metrics import Agreement
from otzi.parallel import in_threads

if TYPE_CHECKING:
    from otzi.box import Box
    from otzi_pipelines.evaluate.segmentation import Segmentation

__all__ = ["agreement_of"]

_BLOCK_VOXELS = 128


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
    chunk = prediction.array.chunk[-1]
    side = max(1, _BLOCK_VOXELS // chunk) * chunk
    boxes = list(tile(prediction.shape, (side, side, side)))

    def measure(box: Box) -> Agreement:
        return Agreement.measure(prediction.read(box), truth.read(box))

    total = Agreement.none(len(prediction.classes))
    name = f"evaluate {prediction.tomo.id}"
    for part in in_threads(measure, boxes, name, "blocks", listen, workers):
        total += part
    return total
