"""The header of an MRC file as a frozen dataclass, from its first 1024 bytes.  Pure.

MRC2014 (Cheng et al., J. Struct. Biol. 192, 2015) with what files in the wild make of it. The
format counts axes as 1, 2, 3 = x, y, z and stores columns fastest; here all is z, y, x.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

from otzi.errors import NotAnMRC, TruncatedMRC, UnsupportedMRC
from otzi.mrc_fields import (
    HEADER_BYTES,
    has_map_word,
    read_dtype,
    read_fields,
    refuse_other_formats,
)

if TYPE_CHECKING:
    import numpy as np

    from otzi.box import Zyx
    from otzi.mrc_fields import ByteOrder

__all__ = ["MrcHeader", "parse_header"]

_VERSIONS = (0, 20140, 20141)
_MOST_ANISOTROPY = 10.0


@dataclass(frozen=True, slots=True)
class MrcHeader:
    """What an MRC file says of its data; axes are z, y, x after mapc, mapr and maps."""

    raw: bytes
    """The 1024 bytes as they are in the file."""
    mode: int
    dtype: np.dtype[Any]
    """As in the file, byte order included."""
    byte_order: ByteOrder
    """``<`` little-endian, ``>`` big-endian."""
    shape: Zyx
    """Extent in voxels."""
    spacing_angstrom: tuple[float | None, float | None, float | None]
    """Cell divided by intervals; None where the header gives none that is above 0."""
    start_voxels: Zyx
    """Position of the first voxel in the grid of the cell."""
    intervals: Zyx
    """Sampling intervals of the cell, mz, my and mx; mz of a stack is the depth of one volume."""
    origin_angstrom: tuple[float, float, float]
    axes: tuple[int, int, int]
    """mapc, mapr, maps: which of 1, 2, 3 = x, y, z the columns, rows and sections are."""
    data_offset: int
    """Where the data begin, in bytes."""
    trailing_bytes: int
    """How many bytes follow the data."""
    missing_sections: int
    """How many of the sections that the header promises are not in the file; see `salvage`."""
    ispg: int
    """Space group: 0 a stack of images, 1 a volume, 401 and above a stack of volumes."""
    nsymbt: int
    """Length of the extended header in bytes."""
    exttyp: str
    """Kind of the extended header, such as ``FEI1``; empty for none."""
    nversion: int
    machine_stamp: bytes
    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    """What is odd but does not hinder, each beginning with the name of the field."""

    @property
    def transpose(self) -> tuple[int, int, int]:
        """For z, y and x: which axis of the stored sections, rows, columns it is."""
        return _transpose(self.axes)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Numbers of sections, rows and columns as they lie in the file."""
        sections, rows, columns = (self.shape[self.transpose.index(axis)] for axis in range(3))
        return sections, rows, columns

    @property
    def is_z_slowest(self) -> bool:
        """Whether the file is read from front to back when it is read by z."""
        return self.transpose[0] == 0

    @property
    def data_bytes(self) -> int:
        """Length of the data in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """Give the parsed fields as plain JSON."""
        return {
            "mode": self.mode,
            "dtype": self.dtype.name,
            "byte_order": "little" if self.byte_order == "<" else "big",
            "shape": list(self.shape),
            "spacing_angstrom": list(self.spacing_angstrom),
            "start_voxels": list(self.start_voxels),
            "intervals": list(self.intervals),
            "origin_angstrom": list(self.origin_angstrom),
            "mapc_mapr_maps": list(self.axes),
            "data_offset": self.data_offset,
            "trailing_bytes": self.trailing_bytes,
            "missing_sections": self.missing_sections,
            "ispg": self.ispg,
            "nsymbt": self.nsymbt,
            "exttyp": self.exttyp,
            "nversion": self.nversion,
            "machine_stamp": self.machine_stamp.hex(" "),
            "labels": list(self.labels),
        }


def parse_header(
    raw: bytes, file_bytes: int | None, name: str, *, salvage: bool = False
) -> MrcHeader:
    """Give the header of a file that begins with `raw`.

    Sizes are compared before anybody allocates by them.

    Parameters
    ----------
    raw
        The first 1024 bytes.
    file_bytes
        Length of the whole file; None where that is not known yet and nothing is compared.
    name
        What messages call the file.
    salvage
        Take a file that is cut short as one of the sections that are whole.

    Raises
    ------
    NotAnMRC
        If it is another kind of file.
    UnsupportedMRC
        If it is of a mode that no array can hold, or its axes are no permutation of x, y, z.
    TruncatedMRC
        If the file is shorter than the header says.
    """
    refuse_other_formats(raw, name)
    if len(raw) < HEADER_BYTES:
        raise TruncatedMRC(
            f"{name} has {len(raw)} bytes, an MRC header alone has {HEADER_BYTES}: copy it again"
        )
    raw = raw[:HEADER_BYTES]
    warnings: list[str] = []
    fields, order = read_fields(raw, name, warnings)
    dtype = read_dtype(fields, name, warnings).newbyteorder(order)
    columns_rows_sections = [int(n) for n in fields["n"]]
    nsymbt = int(fields["nsymbt"])
    for field, value in [*zip("xyz", columns_rows_sections, strict=True), ("symbt", nsymbt)]:
        if value < 0:
            raise NotAnMRC(f"{name} is no MRC file: n{field} is {value}, it must be 0 or more")
    axes = _axes(fields, name, warnings)
    data_offset = HEADER_BYTES + nsymbt
    missing = 0
    if salvage and file_bytes is not None and has_map_word(fields):
        section_bytes = prod(columns_rows_sections[:2]) * dtype.itemsize
        missing = _missing_sections(file_bytes - data_offset, section_bytes, columns_rows_sections)
    if missing:
        warnings.append(
            f"nz: SALVAGED: the last {missing} of {columns_rows_sections[2]} sections are lost"
        )
        columns_rows_sections[2] -= missing
    z, y, x = _from_stored(axes, columns_rows_sections)
    expected = data_offset + prod(columns_rows_sections) * dtype.itemsize
    trailing = 0 if file_bytes is None else file_bytes - expected
    _check_size(fields, name, expected, expected + trailing, warnings)
    _look_at_text(fields, warnings)
    return MrcHeader(
        raw=raw,
        mode=int(fields["mode"]),
        dtype=dtype,
        byte_order=order,
        shape=(z, y, x),
        spacing_angstrom=_spacing(fields, z, warnings),
        start_voxels=_from_stored(axes, [int(n) for n in fields["nstart"]]),
        intervals=_intervals(fields),
        origin_angstrom=_origin(fields, warnings),
        axes=axes,
        data_offset=data_offset,
        trailing_bytes=trailing,
        missing_sections=missing,
        ispg=int(fields["ispg"]),
        nsymbt=nsymbt,
        exttyp=_text(fields["exttyp"].tobytes()),
        nversion=int(fields["nversion"]),
        machine_stamp=raw[212:216],
        labels=tuple(filter(None, (_text(label.tobytes()) for label in fields["labels"]))),
        warnings=tuple(warnings),
    )


def _transpose(axes: tuple[int, int, int]) -> tuple[int, int, int]:
    stored = axes[::-1]
    return stored.index(3), stored.index(2), stored.index(1)


def _from_stored(axes: tuple[int, int, int], columns_rows_sections: list[int]) -> Zyx:
    z, y, x = (columns_rows_sections[::-1][axis] for axis in _transpose(axes))
    return z, y, x


def _missing_sections(there_bytes: int, section_bytes: int, extents: list[int]) -> int:
    """Give how many sections are not whole, 0 if none of them is."""
    whole = max(0, there_bytes) // max(1, section_bytes)
    return max(0, extents[2] - whole) if whole else 0


def _intervals(fields: Any) -> Zyx:
    x, y, z = (int(n) for n in fields["m"])
    return z, y, x


def _axes(fields: Any, name: str, warnings: list[str]) -> tuple[int, int, int]:
    columns, rows, sections = (int(n) for n in fields["map"])
    if (columns, rows, sections) == (0, 0, 0):
        warnings.append("mapc: mapc, mapr, maps are 0, taken as 1, 2, 3")
        return 1, 2, 3
    if {columns, rows, sections} != {1, 2, 3}:
        raise UnsupportedMRC(
            f"{name} has mapc, mapr, maps = {columns}, {rows}, {sections}: they must be a "
            "permutation of 1, 2, 3"
        )
    return columns, rows, sections


def _check_size(
    fields: Any, name: str, expected: int, file_bytes: int, warnings: list[str]
) -> None:
    if not has_map_word(fields):
        if file_bytes != expected:
            raise NotAnMRC(
                f"{name} is no MRC file: no 'MAP ' at byte 208, and dimensions "
                f"{fields['n'].tolist()} of mode {fields['mode']} need {expected} bytes, "
                f"it has {file_bytes}"
            )
        warnings.append("map: no 'MAP ' at byte 208, but the size fits")
    if file_bytes < expected:
        raise TruncatedMRC(
            f"{name} is cut short: expected {expected} bytes by its header, there are "
            f"{file_bytes}: copy it again"
        )
    if file_bytes > expected:
        warnings.append(f"nz: {file_bytes - expected} bytes follow the data and are left out")


def _look_at_text(fields: Any, warnings: list[str]) -> None:
    if int(fields["nversion"]) not in _VERSIONS:
        warnings.append(f"nversion: {fields['nversion']} is no version of the format")
    exttyp = fields["exttyp"].tobytes()
    if exttyp.strip(b" \0") and not (exttyp.isascii() and exttyp.decode("ascii").isprintable()):
        warnings.append(f"exttyp: {exttyp.hex(' ')} is no kind of extended header")


def _text(data: bytes) -> str:
    text = data.partition(b"\0")[0].decode("latin-1")
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _spacing(
    fields: Any, n_z: int, warnings: list[str]
) -> tuple[float | None, float | None, float | None]:
    """Cell and intervals are along x, y, z whatever the order of the axes in the file."""
    found: list[float | None] = []
    for axis, cell, intervals in zip("xyz", fields["cella"], fields["m"], strict=True):
        length, n = float(cell), int(intervals)
        is_given = isfinite(length) and length > 0 and n > 0
        found.append(length / n if is_given else None)
        if not is_given:
            warnings.append(f"cella: no voxel size along {axis} ({length:g} Å in {n} intervals)")
    x, y, z = found
    if z is not None and x is not None and max(z / x, x / z) > _MOST_ANISOTROPY:
        cause = f"mz is {fields['m'][2]} for {n_z} sections" if fields["m"][2] == 1 else "cella"
        warnings.append(f"mz: voxels of {z:g} Å in z and {x:g} Å in x ({cause})")
    return z, y, x


def _origin(fields: Any, warnings: list[str]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in fields["origin"])
    if not all(map(isfinite, (x, y, z))):
        warnings.append("origin: not finite, taken as 0")
        return 0.0, 0.0, 0.0
    return z, y, x
