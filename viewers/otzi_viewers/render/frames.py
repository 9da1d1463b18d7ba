"""Movies of tomograms, frame by frame: each made once and carried on, here or by others."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otzi.events import Listener, Noted, step
from otzi_viewers.render.away import each, is_away
from otzi_viewers.render.device import chosen_device
from otzi_viewers.render.film import write_movie
from otzi_viewers.render.output import DIGEST, read_texts, write_picture
from otzi_viewers.render.post import shown
from otzi_viewers.render.subject import kept_stage, streaming

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.execute import Executor
    from otzi.tomogram import Tomogram
    from otzi_viewers.render.scene import Scene
    from otzi_viewers.render.subject import Subject

__all__ = ["make_movie"]


class _Frame(NamedTuple):
    """One frame to be made."""

    scene: Scene
    path: Path
    digest: str


class _Frames(NamedTuple):
    """Frames that are made together."""

    subject: Subject
    frames: tuple[_Frame, ...]


def make_movie(
    tomo: Tomogram,
    subject: Subject,
    scenes: Sequence[Scene],
    fps: int,
    output: Path,
    texts: dict[str, str],
    executor: Executor | None,
    listen: Listener,
) -> None:
    """Write a movie of complete scenes, one a frame; frames lie in ``.NAME.frames`` meanwhile.

    Whoever computes the frames, this process puts them together, in their order.

    Parameters
    ----------
    tomo, subject, scenes
        What to draw.
    fps
        Frames per second.
    output
        The file.
    texts
        What it says of itself.
    executor
        Where frames are computed; here, one by one, if None.
    listen
        Told of the progress.
    """
    folder = output.with_name(f".{output.name}.frames")
    folder.mkdir(exist_ok=True)
    frames = [
        _Frame(seen, folder / f"{n:06d}.png", f"{texts[DIGEST]} {n}")
        for n, seen in enumerate(scenes)
    ]
    missing = [f for f in frames if read_texts(f.path).get(DIGEST) != f.digest]
    if missing and not is_away(executor):
        listen(Noted(chosen_device(subject.device.asked)[1]))
    subject = subject._replace(n_pictures=max(1, len(missing)))
    plan = streaming(tomo, subject, listen)
    n_workers = max(1, executor.n_workers) if executor and is_away(executor) else 1
    share = -(-len(missing) // n_workers)
    together = min(plan.pictures_at_once, share) if plan else 1
    batches = [
        _Frames(subject, tuple(missing[first : first + together]))
        for first in range(0, len(missing), max(1, together))
    ]
    with step(listen, "frames", len(missing), "frames") as work:
        for batch, _ in each(executor, _make_frames, batches):
            work.advance(len(batch.frames))
    with step(listen, "movie"):
        write_movie(
            output,
            (_read_frame(frame.path) for frame in frames),
            scenes[0].output.size,
            fps,
            json.dumps(texts),
        )
    shutil.rmtree(folder, ignore_errors=True)


def _make_frames(batch: _Frames) -> None:
    stage = kept_stage(batch.subject)
    scenes = [frame.scene for frame in batch.frames]
    for frame, (rgba, _) in zip(batch.frames, stage.render_all(scenes), strict=True):
        picture = shown(rgba, frame.scene, stage.volume)
        write_picture(frame.path, picture, 8, {DIGEST: frame.digest})


def _read_frame(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
