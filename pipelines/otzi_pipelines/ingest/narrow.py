"""Float32 that is integers in truth: found by a look at some rows, proved in the pass itself.

Many files are int8, int16 or uint16 that a program wrote as float32; they are stored as what they
are, to the last bit. A float16 is left as float32, because viewers do not read it; so are integers
that vary by a few steps only, because the means of the coarser levels are rounded to steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.mrc import read_window
from otzi_pipelines.ingest.source_files import reading_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi_pipelines.ingest.sources import Source

__all__ = ["DoesNotFit", "exact_dtypes", "narrowed"]

_INTEGERS: tuple[np.dtype[Any], ...] = (np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.uint16))
_N_PLANES, _N_ROWS = 9, 16
_LEAST_DEVIATION = 10.0  # in steps: what rounding adds to level 1 is below 1 % of its variance


class DoesNotFit(Exception):
    """A value that the narrower type cannot hold."""


def exact_dtypes(source: Source) -> list[np.dtype[Any]]:
    """Give the types to store a source in, to be tried in this order; the last holds it surely.

    Raises
    ------
    SourceError
        If the source cannot be read.
    """
    own = source.header.dtype.newbyteorder("=")
    if own != np.float32:
        return [own]
    candidates = list(_INTEGERS)
    n_z, n_y, n_x = source.header.shape
    n_rows = min(_N_ROWS, n_y)
    samples = []
    for z in sorted({round(i * (n_z - 1) / (_N_PLANES - 1)) for i in range(_N_PLANES)}):
        y = (n_y - n_rows) // 2
        with reading_source(source.path):
            box = Box((z, y, 0), (z + 1, y + n_rows, n_x))
            sample = read_window(source.data_path, source.header, box)
        candidates = [dtype for dtype in candidates if _fits(sample, dtype)]
        if not candidates:
            return [own]
        samples.append(sample)
    is_fine = np.std(samples, dtype=np.float64) >= _LEAST_DEVIATION
    return [candidates[0], own] if is_fine else [own]


def narrowed(block: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give a block in a narrower type from which it can be had back to the last bit.

    Raises
    ------
    DoesNotFit
        If it cannot.
    """
    with np.errstate(invalid="ignore"):
        narrow = block.astype(dtype)
    back = narrow.astype(np.float32)
    if not np.array_equal(back.view(np.uint32), block.view(np.uint32)):
        raise DoesNotFit
    return narrow


def _fits(block: NDArray[np.float32], dtype: np.dtype[Any]) -> bool:
    try:
        narrowed(block, dtype)
    except DoesNotFit:
        return False
    return True
