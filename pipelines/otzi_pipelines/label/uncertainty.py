"""Where the labels are unsure: the entropy of soft labels, as a product beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import tile
from otzi.errors import UsageError
from otzi.events import Listener, Noted, ignore, step
from otzi.pseudo.uncertainty import entropy
from otzi_pipelines.label.plan import CHUNK_VOXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram

__all__ = [
    "has_uncertainty",
    "publish_uncertainty",
    "read_uncertainty",
    "soft_labels",
    "stored_uncertainty",
    "uncertainty_product",
]

_BLOCK = (128, 128, 128)
_COLOR = "#ffffff"


def uncertainty_product(name: str) -> str:
    """Give the product that holds the uncertainty of ``labels/NAME``."""
    return f"labels/{name}_uncertainty"


def publish_uncertainty(tomo: Tomogram, name: str, listen: Listener = ignore) -> bool:
    """Publish ``labels/NAME_uncertainty``, and tell whether there was work to do.

    It is ``(1, z, y, x)`` uint8, 255 times the normalised entropy of the soft labels as they are
    stored, with a pyramid of means. An interrupted run goes on where it was.

    Parameters
    ----------
    tomo
        Of a collection open for writing.
    name
        Of soft labels.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If there are no such labels.
    UsageError
        If they are hard.
    """
    labels = soft_labels(tomo, name)
    product = uncertainty_product(name)
    if has_uncertainty(tomo, name):
        listen(Noted(f"{tomo.id} has this {product} already"))
        return False
    with tomo.write(
        product,
        dtype=np.uint8,
        channels=("uncertainty",),
        colors=(_COLOR,),
        chunk_voxels=CHUNK_VOXELS,
        recipe=_recipe(name),
        parents=(f"labels/{name}",),
    ) as writer:
        boxes = [b for b in tile(tomo.shape, _BLOCK) if not writer.is_done((slice(1), *b.slices))]
        with step(listen, f"uncertainty {tomo.id}", len(boxes), "blocks") as work:
            for box in boxes:
                unsure = stored_uncertainty(labels[..., *box.slices])
                writer[slice(0, 1), *box.slices] = unsure[None]
                work.advance()
    return True


def soft_labels(tomo: Tomogram, name: str, level: int = 0) -> LevelArray:
    """Give a level of soft labels, ``(c, z, y, x)`` as stored.

    Raises
    ------
    NotFoundError
        If there are no such labels.
    UsageError
        If they are hard.
    """
    labels = tomo.array(f"labels/{name}", level)
    if labels.ndim != 4:
        raise UsageError(
            f"labels/{name} of {tomo.id} are hard and do not say how sure they are: make soft ones "
            f"with `otzi pseudolabel {tomo.collection.path} {tomo.id} --name {name} --soft`"
        )
    return labels


def stored_uncertainty(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Give 255 times the normalised entropy of soft labels as stored: ``(c, …)`` to ``(…)`` uint8.

    `labels` are uint8, 255 times the probabilities, or floats.
    """
    whole = np.float32(255 if labels.dtype == np.uint8 else 1)
    return np.rint(entropy(labels / whole) * 255).astype(np.uint8)


def read_uncertainty(tomo: Tomogram, name: str, box: Box, level: int = 0) -> NDArray[np.uint8]:
    """Give a box of a level of the uncertainty of soft labels: ``(z, y, x)`` uint8.

    From the published product where it is of these labels. Otherwise from their own pyramid, where
    a coarse voxel on the border of two classes counts as unsure.

    Raises
    ------
    NotFoundError
        If there are no such labels.
    UsageError
        If they are hard.
    """
    labels = soft_labels(tomo, name, level)
    if has_uncertainty(tomo, name):
        stored: NDArray[np.uint8] = tomo.read(uncertainty_product(name), box, level)[0]
        return stored
    return stored_uncertainty(labels[..., *box.slices])


def has_uncertainty(tomo: Tomogram, name: str) -> bool:
    """Tell whether the uncertainty of these very labels is published."""
    return tomo.is_made(uncertainty_product(name), _recipe(name), (f"labels/{name}",))


def _recipe(name: str) -> dict[str, str]:
    return {"verb": "uncertainty", "of": name}
