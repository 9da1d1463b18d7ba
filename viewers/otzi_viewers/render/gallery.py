"""Pictures of several tomograms, here or by others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otzi.collection import open_collection
from otzi.errors import NotFoundError, VerificationError
from otzi.events import Event, Listener, Noted, ignore
from otzi_viewers.render.away import each, is_away
from otzi_viewers.render.device import AUTO, DrawingDevice
from otzi_viewers.render.pictures import render_tomogram

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from otzi.execute import Executor
    from otzi_viewers.render.scene import Scene

__all__ = ["PictureRequest", "render_requests"]


class PictureRequest(NamedTuple):
    """A picture or movie that is asked for, see `render_tomogram`; other processes can read it."""

    collection: str
    tomogram: str
    output: Path
    probs: str | None
    scene: Scene
    level: int | None
    memory_bytes: int
    snapshots: bool = False
    device: DrawingDevice = AUTO


Outcome = bool | NotFoundError | VerificationError
"""Whether there was work to do; or why this tomogram cannot be drawn, and others may be."""


def render_requests(
    requests: Sequence[PictureRequest], executor: Executor | None, listen: Listener = ignore
) -> Iterator[tuple[PictureRequest, Outcome]]:
    """Yield the outcome of each request as it is done.

    Others take whole stills, and of movies the frames: a movie is put together here.
    """
    if is_away(executor):
        stills = [request for request in requests if not _is_movie(request)]
        yield from each(executor, _made, stills)
        requests = [request for request in requests if _is_movie(request)]
    told = _once(listen)
    for request in requests:
        yield request, _made(request, executor, told)


def _is_movie(request: PictureRequest) -> bool:
    return request.output.suffix.lower() == ".mp4"


def _once(listen: Listener) -> Listener:
    """Give a listener that hears of the device, which all pictures share, only once."""
    said: set[str] = set()

    def told(event: Event) -> None:
        if not isinstance(event, Noted):
            listen(event)
        elif event.message not in said:
            said.add(event.message)
            listen(event)

    return told


def _made(
    request: PictureRequest, executor: Executor | None = None, listen: Listener = ignore
) -> Outcome:
    try:
        return render_tomogram(
            open_collection(request.collection)[request.tomogram],
            request.output,
            probs=request.probs,
            scene=request.scene,
            level=request.level,
            memory_bytes=request.memory_bytes,
            executor=executor,
            snapshots=request.snapshots,
            device=request.device,
            listen=listen,
        )
    except (NotFoundError, VerificationError) as error:
        return error
