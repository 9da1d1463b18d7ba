"""Pictures as OpenEXR files: linear light as it was computed, opacity, depth."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import ConfigurationError, disk_errors
from otzi.files import writing_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["check_exr", "read_exr_texts", "write_exr"]


def check_exr() -> Any:
    """Give the library.

    Raises
    ------
    ConfigurationError
        If it is not installed.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise ConfigurationError(".exr files need OpenEXR: pip install 'otzi[exr]'") from error
    return OpenEXR


def write_exr(
    path: Path,
    rgba: NDArray[np.float32],
    depth_angstrom: NDArray[np.float32],
    opacities: Mapping[str, NDArray[np.float32]],
    texts: Mapping[str, str],
) -> None:
    """Write a picture, whole or not at all.

    Parameters
    ----------
    path
        The file; what is there is replaced.
    rgba
        ``(rows, columns, 4)`` float32, premultiplied linear light: channels R, G, B, A.
    depth_angstrom
        ``(rows, columns)`` float32: channel Z; infinite where nothing is.
    opacities
        Of each class alone, ``(rows, columns)`` float32: channels ``NAME.A``.
    texts
        Kept in the header.

    Raises
    ------
    OutOfSpace, AccessDenied, TemporaryFailure
        If the file system fails; what was there before stays.
    """
    library = check_exr()
    channels = {name: np.ascontiguousarray(rgba[..., i]) for i, name in enumerate("RGBA")}
    channels["Z"] = np.ascontiguousarray(depth_angstrom, np.float32)
    for name, opacity in opacities.items():
        channels[f"{name}.A"] = np.ascontiguousarray(opacity, np.float32)
    header = {
        "compression": library.ZIP_COMPRESSION,
        "type": library.scanlineimage,
        **{key.replace(" ", "."): text for key, text in texts.items()},
    }
    with disk_errors(path, "writing"), writing_whole(path) as file:
        # The library writes to a name; the one that is renamed when whole.
        with library.File(header, channels) as picture:
            try:
                picture.write(file.name)
            except RuntimeError as error:  # whatever the file system said is in its text alone
                is_full = os.strerror(errno.ENOSPC) in str(error)
                raise OSError(errno.ENOSPC if is_full else errno.EIO, str(error)) from error


def read_exr_texts(path: Path) -> dict[str, str]:
    """Give the texts that `write_exr` put into a file; none where it did not write it."""
    library = check_exr()
    try:
        with library.File(str(path), header_only=True) as picture:
            header = dict(picture.header())  # the library empties its own
    except (OSError, RuntimeError, ValueError):
        return {}
    return {key.replace(".", " "): v for key, v in header.items() if isinstance(v, str)}
