"""How unsure class probabilities are: their entropy, 0 for one class only and 1 for all alike."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["entropy", "uncertainty"]


def uncertainty(probabilities: xr.DataArray) -> xr.DataArray:
    """Give the normalised entropy of every voxel, lazily.

    Parameters
    ----------
    probabilities
        ``(c, z, y, x)`` in [0, 1], as of `otzi.pseudo_labels`, ``tomo.labels`` or ``tomo.probs``.

    Returns
    -------
    xarray.DataArray
        ``(z, y, x)`` float32 in [0, 1], lazy where the probabilities are.
    """
    found: xr.DataArray = xr.apply_ufunc(
        lambda last: entropy(np.moveaxis(last, -1, 0)),
        probabilities.chunk(c=-1) if probabilities.chunks else probabilities,
        input_core_dims=[["c"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    return found.rename("uncertainty")


def entropy(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """Give the entropy over classes, divided by that of classes that are all alike.

    Parameters
    ----------
    probabilities
        ``(c, ...)`` in [0, 1]; a voxel of no class has entropy 0.

    Returns
    -------
    NDArray
        ``(...)`` float32 in [0, 1].
    """
    total = np.zeros(probabilities.shape[1:], np.float32)
    for p in probabilities:
        # p·log(p) of 0 is 0: the logarithm of the smallest float is finite.
        total -= p * np.log(np.maximum(p, np.finfo(np.float32).tiny), dtype=np.float32)
    total /= np.float32(log(len(probabilities)))
    return np.clip(total, 0, 1, out=total)
