"""Frames into a movie file: H.264 in MP4, by PyAV."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from otzi.errors import ConfigurationError, disk_errors
from otzi.files import writing_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["check_codec", "read_comment", "write_movie"]

_CODEC = "libx264"
_QUALITY = {"crf": "16", "preset": "slow"}


def check_codec(size: tuple[int, int]) -> None:
    """Refuse what cannot be encoded, before hours go into the frames.

    Raises
    ------
    ConfigurationError
        If PyAV is not installed, it has no H.264, or a side of the picture is odd.
    """
    av = _library()
    if _CODEC not in av.codecs_available:
        raise ConfigurationError(
            f"PyAV {av.__version__} has no {_CODEC}: pip install --force-reinstall 'otzi[movie]'"
        )
    if size[0] % 2 or size[1] % 2:
        raise ConfigurationError(
            f"a movie of {size[0]}x{size[1]} pixels: both sides must be even, take another --size"
        )


def write_movie(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    size: tuple[int, int],
    fps: int,
    comment: str,
) -> None:
    """Write frames, each ``(rows, columns, 3)`` uint8 sRGB, whole or not at all, with a comment.

    `size` is width and height.

    Raises
    ------
    OutOfSpace, AccessDenied, TemporaryFailure
        If the file system fails; what was there before stays.
    """
    av = _library()
    with disk_errors(path, "writing"), writing_whole(path) as file:
        with av.open(file, "w", format="mp4", options={"movflags": "+faststart"}) as container:
            container.metadata["comment"] = comment
            stream = container.add_stream(_CODEC, rate=fps, options=_QUALITY)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            # One thread: more cut the picture otherwise on machines with more cores.
            stream.codec_context.thread_count = 1
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))


def read_comment(path: Path) -> str:
    """Give what `write_movie` put into a file beside the frames; nothing where it did not."""
    with contextlib.suppress(Exception), _library().open(str(path)) as container:
        return str(container.metadata.get("comment", ""))
    return ""


def _library() -> Any:
    try:
        import av
    except ImportError as error:
        raise ConfigurationError("movies need PyAV: pip install 'otzi[movie]'") from error
    return av
