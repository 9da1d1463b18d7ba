"""Whether the data of an MRC file are one volume of densities, or a stack of them.  Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from otzi.errors import UnsupportedMRC

if TYPE_CHECKING:
    from otzi.mrc_header import MrcHeader

__all__ = ["check_tomogram", "is_volume_stack", "split_volumes"]

_FIRST_STACK_GROUP = 401


def is_volume_stack(header: MrcHeader) -> bool:
    """Tell whether a space group of 401 or above says that the sections are those of volumes."""
    return header.ispg >= _FIRST_STACK_GROUP


def split_volumes(header: MrcHeader, name: str) -> list[MrcHeader]:
    """Give the headers of the volumes of a stack, as if each were alone in a file.

    Raises
    ------
    UnsupportedMRC
        If its sections cannot be shared out: mz says how many make a volume.
    """
    (n_z, n_y, n_x), depth = header.shape, header.intervals[0]
    if not header.is_z_slowest:
        raise UnsupportedMRC(
            f"{name} is a stack of volumes whose sections do not lie along z (maps is "
            f"{header.axes[2]}): it cannot be split"
        )
    if depth < 2 or n_z % depth or not header.data_bytes:
        raise UnsupportedMRC(
            f"{name} is a stack of volumes (space group {header.ispg}), but its {n_z} sections "
            f"are no volumes of mz = {depth}: it cannot be split"
        )
    volume = replace(header, shape=(depth, n_y, n_x), trailing_bytes=0, ispg=1)
    starts = range(header.data_offset, header.data_offset + header.data_bytes, volume.data_bytes)
    return [replace(volume, data_offset=start) for start in starts]


def check_tomogram(header: MrcHeader, name: str, *, as_volume: bool = False) -> None:
    """Make sure that the data are one volume of real numbers.

    Parameters
    ----------
    header, name
        Of the file; the name is what the message calls it.
    as_volume
        Take a stack of images (space group 0) as a volume: some programs never set it.

    Raises
    ------
    UnsupportedMRC
        If they are images, a stack, complex, or nothing at all.
    """
    extent = " × ".join(map(str, header.shape))
    if 0 in header.shape:
        raise UnsupportedMRC(f"{name} holds nothing: it has {extent} voxels (z, y, x)")
    if header.dtype.kind == "c":
        raise UnsupportedMRC(f"{name} is a transform (mode {header.mode}, complex), no density")
    if 1 in header.shape:
        raise UnsupportedMRC(f"{name} is a single image, no volume: {extent} voxels (z, y, x)")
    if is_volume_stack(header):
        raise UnsupportedMRC(
            f"{name} is a stack of volumes (space group {header.ispg}): pass --split-volumes to "
            "take each as a tomogram"
        )
    if header.ispg == 0 and not as_volume:
        raise UnsupportedMRC(
            f"{name} is a stack of images (space group 0), no volume: pass --as-volume if it is a "
            "tomogram whose program did not say so"
        )
