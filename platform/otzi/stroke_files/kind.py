"""What kind of file strokes are in, by its first bytes and its name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from otzi.errors import ConfigurationError, NotFoundError, disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["StrokeFile", "kind_of", "needing"]

StrokeFile = Literal["json", "table", "ilastik", "tiff", "zarr", "mrc"]

_HEAD_BYTES = 1024
_HDF5 = b"\x89HDF\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, in both byte orders
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def kind_of(path: Path) -> StrokeFile:
    """Give what a file or folder is to be read as; ``mrc`` if nothing else fits.

    Raises
    ------
    NotFoundError, AccessDenied, TemporaryFailure
        If it is not there or cannot be read.
    """
    if not path.exists():
        raise NotFoundError(f"stroke file {path} is not there")
    if path.is_dir():
        return "zarr"
    with disk_errors(path, "reading"), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_HDF5):
        return "ilastik"
    if head.startswith(_TIFF):
        return "tiff"
    # A binary header has zeros, and its first byte can be that of a brace.
    text = b"" if b"\0" in head else head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if path.suffix.lower() == ".json" or text.startswith(b"{"):
        return "json"
    if path.suffix.lower() == ".csv" or b"axis-0" in text.partition(b"\n")[0]:
        return "table"
    return "mrc"


@contextmanager
def needing(extra: str, path: Path) -> Iterator[None]:
    """Turn a missing library into an error that says how to install it.

    Raises
    ------
    ConfigurationError
        If an import fails.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{path} needs {error.name}, which is not installed: pip install 'otzi[{extra}]'"
        ) from error
