"""Channels of stroke voxels, kept with the labels: what was computed once is not computed again."""

from __future__ import annotations

import zipfile
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

import otzi
from otzi.events import Listener, Noted, ignore
from otzi.pseudo.sample import sample
from otzi.stroke_voxels import StrokeVoxels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.pseudo.bank import FeatureBank
    from otzi.tomogram import Tomogram

__all__ = ["save_samples", "stroke_samples"]

_FILE = "samples.npz"
_MOST_BYTES = 256 * 10**6
"""Whoever labels whole volumes gets no second copy of their channels."""
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def stroke_samples(
    tomo: Tomogram,
    product: str,
    bank: FeatureBank,
    read: Callable[[Box], NDArray[Any]],
    voxels: StrokeVoxels,
    *,
    workers: int = 1,
    listen: Listener = ignore,
) -> NDArray[np.float32]:
    """Give the channels of stroke voxels as `otzi.pseudo.sample.sample` does, to the bit.

    Voxels that the published labels were learned from are looked up there, as long as density,
    bank and otzi are the same; the others are computed.

    Parameters
    ----------
    tomo, product
        Where labels may have been published before, ``labels/NAME``.
    bank, read, voxels, workers, listen
        As in `sample`.

    Returns
    -------
    NDArray
        ``(voxel, channel)`` float32.

    Raises
    ------
    UsageError
        If the volume is too thin for the bank.
    """
    indices, samples = _kept(tomo, product, bank)
    is_new = ~np.isin(voxels.indices, indices, assume_unique=True)
    new = StrokeVoxels(voxels.shape, voxels.coordinates[is_new], voxels.classes[is_new])
    if len(new) < len(voxels):
        n_kept = len(voxels) - len(new)
        listen(Noted(f"features of {n_kept:,} of {len(voxels):,} stroke voxels are there already"))
    found = np.empty((len(voxels), len(bank.names)), np.float32)
    found[is_new] = sample(bank, read, new, workers=workers, listen=listen)
    found[~is_new] = samples[np.searchsorted(indices, voxels.indices[~is_new])]
    return found


def save_samples(folder: Path, voxels: StrokeVoxels, samples: NDArray[np.float32]) -> None:
    """Write the channels of voxels, ``(voxel, channel)`` float32, to a folder, if up to 256 MB."""
    if samples.nbytes <= _MOST_BYTES:
        np.savez(
            folder / _FILE, indices=voxels.indices.astype("<i8"), samples=samples.astype("<f4")
        )


def _kept(
    tomo: Tomogram, product: str, bank: FeatureBank
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    nothing = np.empty(0, np.int64), np.empty((0, len(bank.names)), np.float32)
    if not tomo.has(product):
        return nothing
    made = tomo.attributes(product)
    if (
        made["recipe"].get("bank") != bank.to_json()
        or made["parents"].get("raw") != tomo.digest("raw")
        or made["otzi_version"] != otzi.__version__
    ):
        return nothing
    try:
        with np.load(BytesIO((tomo.path(product) / _FILE).read_bytes())) as stored:
            return stored["indices"], stored["samples"]
    except _UNREADABLE:
        return nothing  # a lost or damaged copy costs time only
