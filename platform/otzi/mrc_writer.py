"""An MRC2014 file, written in any order; it appears under its name when it is whole."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import CannotCreate, VerificationError, disk_errors
from otzi.files import check_space, writing_whole
from otzi.mrc_fields import FIELDS, HEADER_BYTES, mode_of
from otzi.store.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

    from otzi.box import Box, Zyx

__all__ = ["MrcImage", "MrcWriter", "writing_mrc"]

_VERSION = 20141
_VOLUME = 1
_LITTLE_ENDIAN = b"\x44\x44\0\0"
_MOST_LABELS, _LABEL_BYTES = 10, 80
_UNDETERMINED = (0.0, -1.0, -2.0), -1.0  # dmin, dmax, dmean; rms: as the format has it


@dataclass(frozen=True, slots=True)
class MrcImage:
    """What a header says of its data; axes are z, y, x."""

    shape: Zyx
    """Extent in voxels."""
    dtype: np.dtype[Any]
    """int8, int16, uint16, float16 or float32."""
    spacing_angstrom: tuple[float, float, float]
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)
    start_voxels: Zyx = (0, 0, 0)
    """Position of the first voxel in the grid of the cell."""
    labels: tuple[str, ...] = ()
    """At most ten are kept, of 80 ASCII characters each."""

    @property
    def n_bytes(self) -> int:
        """Length of the file."""
        return HEADER_BYTES + prod(self.shape) * self.dtype.itemsize

    def header(self, density: Moments) -> bytes:
        """Give the 1024 bytes, with the statistics of all finite voxels."""
        fields = np.zeros((), FIELDS.newbyteorder("<"))
        fields["n"] = fields["m"] = self.shape[::-1]
        fields["mode"] = mode_of(self.dtype)
        fields["nstart"] = self.start_voxels[::-1]
        fields["cella"] = np.multiply(self.shape, self.spacing_angstrom)[::-1]
        fields["cellb"] = 90
        fields["map"] = 1, 2, 3
        fields["density"], fields["rms"] = _statistics(density)
        fields["ispg"] = _VOLUME
        fields["nversion"] = _VERSION
        fields["origin"] = self.origin_angstrom[::-1]
        fields["map_word"] = b"MAP "
        fields["machst"] = _LITTLE_ENDIAN
        labels = [_label(text) for text in self.labels[:_MOST_LABELS]]
        fields["nlabl"] = len(labels)
        fields["labels"][: len(labels)] = labels
        return fields.tobytes()


class MrcWriter:
    """The writer of a file: ``writer[box] = block``, boxes of whole rows, each voxel once."""

    def __init__(self, file: BinaryIO, image: MrcImage) -> None:
        self.image = image
        self.density = Moments.none(image.dtype)
        self._file = file

    def __setitem__(self, box: Box, block: NDArray[Any]) -> None:
        """Write a ``(z, y, x)`` block of the image's dtype."""
        _, n_y, n_x = self.image.shape
        if box.shape[2] != n_x or block.shape != box.shape or block.dtype != self.image.dtype:
            raise ValueError(f"{block.shape} {block.dtype} in {box}: write whole rows of the image")
        self.density = self.density.add(block)
        stored = np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
        for z, rows in enumerate(stored, box.start[0]):
            voxels = (z * n_y + box.start[1]) * n_x
            self._file.seek(HEADER_BYTES + voxels * stored.itemsize)
            self._file.write(rows.data)

    def finish(self) -> None:
        """Check that all is there, and write the header."""
        density = self.density
        written = density.n_nonzero + density.zeros + density.nonfinite_voxels
        if written != prod(self.image.shape):
            raise VerificationError(f"{written} voxels were written, not {prod(self.image.shape)}")
        self._file.seek(0)
        self._file.write(self.image.header(density))


@contextmanager
def writing_mrc(path: str | Path, image: MrcImage, *, force: bool = False) -> Iterator[MrcWriter]:
    """Write an MRC file; it is there, whole, on leaving without an exception.

    Parameters
    ----------
    path, image
        The file and what it is to be.
    force
        Replace a file that is there.

    Raises
    ------
    CannotCreate
        If there is no such folder, or something of that name.
    OutOfSpace, AccessDenied, TemporaryFailure
        If the file system fails; nothing is left behind then.
    """
    path = Path(path)
    with disk_errors(path, "writing"):
        _check_place(path, image.n_bytes, force=force)
        with writing_whole(path) as file:
            writer = MrcWriter(file, image)
            yield writer
            writer.finish()


def _check_place(path: Path, n_bytes: int, *, force: bool) -> None:
    if not path.parent.is_dir():
        raise CannotCreate(f"{path.parent} is no folder: make it first")
    if path.is_dir():
        raise CannotCreate(f"{path} is a folder: give a file in it")
    if path.exists() and not force:
        raise CannotCreate(f"{path} is there already: pass --force to replace it")
    check_space(path.parent, n_bytes, f"{path.name} needs", "write a smaller or coarser volume")


def _statistics(density: Moments) -> tuple[tuple[float, float, float], float]:
    """Give dmin, dmax and dmean, and rms; zeros are voxels like all others here."""
    n, zeros = density.n_nonzero, density.zeros
    if not n + zeros:
        return _UNDETERMINED
    low, high = density.minimum, density.maximum
    if zeros:
        low, high = min(low, 0.0), max(high, 0.0)
    share = n / (n + zeros)
    variance = density.squares / (n + zeros) + density.mean**2 * share * (1 - share)
    return (low, high, density.mean * share), sqrt(variance)


def _label(text: str) -> bytes:
    return text.encode("ascii", "replace")[:_LABEL_BYTES].ljust(_LABEL_BYTES)
