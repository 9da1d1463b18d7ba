"""MRC files as bytes, with every field to spoil; headers are laid out by mrcfile's own dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

__all__ = ["mrc_bytes"]

_MODES = {"i1": 0, "i2": 1, "f4": 2, "c8": 4, "u2": 6, "f2": 12}


def mrc_bytes(
    stored: np.ndarray, order: str = "<", extended: bytes = b"", spacing: float = 10, **fields: Any
) -> bytes:
    """Give a file of ``(sections, rows, columns)`` data; `fields` replace those of the header."""
    header = np.zeros((), HEADER_DTYPE.newbyteorder(order))
    header["nz"], header["ny"], header["nx"] = stored.shape
    header["mz"], header["my"], header["mx"] = stored.shape
    header["mode"] = _MODES.get(stored.dtype.str[1:], 2)
    for axis, n in zip("zyx", stored.shape, strict=True):
        header["cella"][axis] = n * spacing
        header["cellb"][{"z": "gamma", "y": "beta", "x": "alpha"}[axis]] = 90
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"] = 1
    header["nsymbt"] = len(extended)
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
    for name, value in fields.items():
        if name.startswith("cella_"):
            header["cella"][name[-1]] = value
        else:
            header[name] = value
    return header.tobytes() + extended + stored.astype(stored.dtype.newbyteorder(order)).tobytes()
