"""The fields of an MRC header: where they lie, and in which byte order they make sense.  Pure."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from otzi.errors import NotAnMRC, UnsupportedMRC

__all__ = [
    "FIELDS",
    "HEADER_BYTES",
    "ByteOrder",
    "has_map_word",
    "mode_of",
    "read_dtype",
    "read_fields",
    "refuse_other_formats",
]

HEADER_BYTES = 1024

ByteOrder = Literal["<", ">"]

_DTYPES = {0: "i1", 1: "i2", 2: "f4", 4: "c8", 6: "u2", 12: "f2"}
_UNREADABLE_MODES = {3: "complex int16", 16: "8-bit RGB", 101: "packed 4-bit"}
_STAMPS: dict[bytes, ByteOrder] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
_OTHER_FORMATS = {
    b"\x1f\x8b\x08": "gzip-compressed: unpack it first with `gunzip --keep`",
    b"BZh": "bzip2-compressed: unpack it first with `bunzip2 --keep`",
    b"\xfd7zXZ": "xz-compressed: unpack it first with `unxz --keep`",
    b"\x28\xb5\x2f\xfd": "zstd-compressed: unpack it first with `unzstd`",
    b"PK\x03\x04": "a zip archive: unpack it first with `unzip`",
    b"\x89HDF": "an HDF5 file: convert it to MRC first",
    b"II*\x00": "a TIFF file: convert it to MRC first",
    b"MM\x00*": "a TIFF file: convert it to MRC first",
}
_IMOD_STAMP = 1146047817
_IMOD_SIGNED, _IMOD_PACKED = 1, 16  # bits of imodFlags
_LARGEST_LIKELY_EXTENT = 65535  # what is less is more than this in the other byte order

_LAYOUT = {  # name: (offset in bytes, format)
    "n": (0, "3i4"),
    "mode": (12, "i4"),
    "nstart": (16, "3i4"),
    "m": (28, "3i4"),
    "cella": (40, "3f4"),
    "cellb": (52, "3f4"),
    "map": (64, "3i4"),
    "density": (76, "3f4"),  # dmin, dmax, dmean
    "ispg": (88, "i4"),
    "nsymbt": (92, "i4"),
    "exttyp": (104, "V4"),
    "nversion": (108, "i4"),
    "imod_stamp": (152, "i4"),
    "imod_flags": (156, "i4"),
    "origin": (196, "3f4"),
    "map_word": (208, "V4"),
    "machst": (212, "V4"),
    "rms": (216, "f4"),
    "nlabl": (220, "i4"),
    "labels": (224, "10V80"),
}

FIELDS = np.dtype(
    {
        "names": list(_LAYOUT),
        "formats": [form for _, form in _LAYOUT.values()],
        "offsets": [offset for offset, _ in _LAYOUT.values()],
        "itemsize": HEADER_BYTES,
    }
)


def refuse_other_formats(start: bytes, name: str) -> None:
    """Make sure that a file does not begin like one of the formats that MRC files come as.

    Raises
    ------
    NotAnMRC
        If it does; the message says how to unpack it.
    """
    for magic, what in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise NotAnMRC(f"{name} is {what}")


def read_fields(raw: bytes, name: str, warnings: list[str]) -> tuple[Any, ByteOrder]:
    """Give the record of fields and its byte order, ``<`` or ``>``, in which it makes sense.

    Mode and extents are looked at in both orders; the machine stamp decides between equals.

    Raises
    ------
    NotAnMRC
        If neither order makes sense.
    """
    both: dict[ByteOrder, Any] = {"<": _fields(raw, "<"), ">": _fields(raw, ">")}
    little, big = _plausibility(both["<"]), _plausibility(both[">"])
    stamped = _STAMPS.get(raw[212:214])
    order = stamped if little == big else "<" if little > big else ">"
    if order is None:
        raise NotAnMRC(
            f"{name} is no MRC file: mode {both['<']['mode']} and dimensions "
            f"{both['<']['n'].tolist()} make no sense in either byte order"
        )
    if order != stamped:
        word = "little" if order == "<" else "big"
        warnings.append(
            f"machst: stamp {raw[212:216].hex(' ')} is odd, mode and dimensions are {word}-endian"
        )
    return both[order], order


def read_dtype(fields: Any, name: str, warnings: list[str]) -> np.dtype[Any]:
    """Give the type of the data by mode; its byte order is left open.

    Mode 0 is signed, but IMOD says by its own flags where it is not.

    Raises
    ------
    NotAnMRC
        If there is no such mode and nothing else speaks for an MRC file.
    UnsupportedMRC
        If no array can hold the mode.
    """
    mode = int(fields["mode"])
    if mode not in _DTYPES:
        if mode not in _UNREADABLE_MODES and not has_map_word(fields):
            raise NotAnMRC(f"{name} is no MRC file: mode {mode}, and no 'MAP ' at byte 208")
        what = _UNREADABLE_MODES.get(mode, "unknown")
        raise UnsupportedMRC(f"{name} has mode {mode} ({what}): convert it to mode 1, 2 or 12")
    if mode == 0 and int(fields["imod_stamp"]) == _IMOD_STAMP:
        flags = int(fields["imod_flags"])
        if flags & _IMOD_PACKED:
            raise UnsupportedMRC(
                f"{name} has mode 0 with imodFlags {flags} (packed 4-bit): convert it to mode 1"
            )
        if not flags & _IMOD_SIGNED:
            warnings.append(f"imodFlags: {flags}, bytes are read as unsigned")
            return np.dtype("u1")
    return np.dtype(_DTYPES[mode])


def mode_of(dtype: np.dtype[Any]) -> int | None:
    """Give the mode of a type, or None where MRC has none."""
    return next((mode for mode, code in _DTYPES.items() if code == dtype.str[1:]), None)


def has_map_word(fields: Any) -> bool:
    """Tell whether ``MAP`` stands at byte 208."""
    return bool(fields["map_word"].tobytes().rstrip(b" \0") == b"MAP")


def _fields(raw: bytes, order: ByteOrder) -> Any:
    return np.frombuffer(raw, FIELDS.newbyteorder(order))[0]


def _plausibility(fields: Any) -> int:
    is_known_mode = int(fields["mode"]) in _DTYPES | _UNREADABLE_MODES
    is_likely = all(0 <= n <= _LARGEST_LIKELY_EXTENT for n in fields["n"].tolist())
    return 2 * is_known_mode + is_likely
