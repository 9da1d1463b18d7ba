"""The picture that an open page shows, once all of it is there; it never waits for ever."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import CorruptShard, TemporaryFailure

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Snapshot", "take_snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """What the panels showed."""

    pixels: NDArray[np.uint8]
    """``(rows, columns, 3)``: red, green, blue."""
    spacings: dict[tuple[str, str], str]
    """Spacing of the voxels drawn, such as ``784pm``, by layer and kind of drawing: this tells
    the level of the pyramid."""


def take_snapshot(
    viewer: Any, seconds: float = 120, pixels: tuple[int, int] | None = None
) -> Snapshot:
    """Give what a Neuroglancer viewer's page shows of the viewer's present state.

    With `pixels`, width and height, once the page has that size.

    Raises
    ------
    CorruptShard
        If voxels that should be seen cannot be read; Neuroglancer itself would wait on.
    TemporaryFailure
        If there is no picture in time: the page is closed, or a layer has an error.
    """
    deadline = time.monotonic() + seconds
    while True:
        reply = _reply(viewer, deadline, seconds)
        # What was set a moment ago may not have arrived when the picture was taken.
        size = (reply.screenshot.width, reply.screenshot.height)
        if reply.viewer_state == viewer.state and pixels in (None, size):
            break
    from PIL import Image

    shot = reply.screenshot
    image = Image.open(io.BytesIO(shot.image)).convert("RGB")
    layers = shot.resolution_metadata.layer_resolution_data
    return Snapshot(np.asarray(image), {(d.name, d.type): d.resolution for d in layers})


def _reply(viewer: Any, deadline: float, seconds: float) -> Any:
    ended = Event()
    replies: list[Any] = []
    failed: list[int] = []

    def took(state: Any) -> None:
        replies.append(state)
        ended.set()

    def progress(statistics: Any) -> None:
        n_failed = statistics.to_json()["total"]["visibleChunksFailed"]
        if n_failed:
            failed.append(n_failed)
            ended.set()

    viewer.async_screenshot(took, statistics_callback=progress)
    ended.wait(max(0.0, deadline - time.monotonic()))
    if replies:
        return replies[0]
    if failed:
        raise CorruptShard(
            f"{failed[0]} chunks of the view cannot be read: run `otzi verify`, or make the "
            "product again"
        )
    raise TemporaryFailure(
        f"no picture within {seconds:g} s: open the page, and look at the Source tab of each layer"
    )
