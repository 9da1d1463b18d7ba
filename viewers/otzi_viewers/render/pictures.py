"""Pictures of tomograms: stills, and movies frame by frame; each made once and carried on."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import otzi
from otzi.arguments import only_probs
from otzi.collection import open_collection
from otzi.errors import NotFoundError, UsageError
from otzi.events import Listener, Noted, ignore, step
from otzi.memory import format_bytes
from otzi_viewers.render.camera import pose
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.exr import check_exr, read_exr_texts, write_exr
from otzi_viewers.render.film import check_codec, read_comment, write_movie
from otzi_viewers.render.movie import frame_scene
from otzi_viewers.render.output import check_output, read_texts, write_picture
from otzi_viewers.render.post import display
from otzi_viewers.render.scale_bar import with_scale_bar
from otzi_viewers.render.scene import Light, Scene, scene_toml
from otzi_viewers.render.source import VolumeSource
from otzi_viewers.render.stream import StreamedStage, stream_plan
from otzi_viewers.render.transfer import complete_scene
from otzi_viewers.render.volume import affordable_level, is_affordable, load_volume
from otzi_viewers.saved_style import with_saved_style

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.execute import Executor
    from otzi.tomogram import Tomogram

__all__ = ["made_texts", "render_tomogram"]

_RULES = 2
"""Raised whenever the same scene and data give another picture."""
_DIGEST = "otzi digest"


class _Subject(NamedTuple):
    """What is drawn, in a form that other processes can open."""

    collection: str
    tomogram: str
    probs: str
    classes: tuple[str, ...]
    scene: Scene
    """The first frame's: what is streamed and how depends on it."""
    level: int
    memory_bytes: int


def render_tomogram(
    tomo: Tomogram,
    output: Path,
    *,
    probs: str | None = None,
    scene: Scene | None = None,
    level: int | None = None,
    memory_bytes: int = 10**9,
    executor: Executor | None = None,
    listen: Listener = ignore,
) -> bool:
    """Write a picture or a movie of a tomogram; tell whether there was work to do.

    The file carries its scene as TOML (text ``otzi scene``) and a digest of all it depends on
    (``otzi digest``): one that is there already is not computed again. The frames of a movie lie
    in ``.NAME.frames`` beside it until it is whole, so that a run that was interrupted goes on.

    Parameters
    ----------
    tomo
        With probabilities and, where the scene leaves left limits open, ramps.
    output
        ``.png``, ``.exr`` or ``.mp4``; what is there is replaced.
    probs
        Name of the probabilities; may be left out where there is one.
    scene
        What to draw and how; what it leaves open is taken from the tomogram.
    level
        Of the pyramid; the finest that fits into the memory if None.
    memory_bytes
        For the volume; a level that does not fit is streamed in bricks.
    executor
        Where the frames of a movie are computed; here, one by one, if None.
    listen
        Told of the progress.

    Raises
    ------
    UsageError, CannotCreate
        If no picture can be written to `output`, or there are several probabilities.
    NotFoundError
        If there are no probabilities, or what `complete_scene` looks for is not there.
    ConfigurationError
        If a library for this kind of file, or a C++ compiler, is not there.
    MemoryBudgetError
        If not even the coarsest level fits.
    """
    check_output(output)
    probs = probs or only_probs(tomo)
    if probs is None:
        raise NotFoundError(f"{tomo.id} has no probabilities to draw: run `otzi segment`")
    scene = complete_scene(with_saved_style(scene or Scene(), tomo, probs), tomo, probs)
    classes = tuple(look.name for look in scene.classes)
    if level is None:
        level = affordable_level(tomo, probs, len(classes), memory_bytes)
    texts = _texts(tomo, probs, scene, level)
    kind = output.suffix.lower()
    if kind == ".mp4":
        check_codec(scene.output.size)
    elif kind == ".exr":
        check_exr()
    if output.is_file() and made_texts(output).get(_DIGEST) == texts[_DIGEST]:
        return False
    subject = _Subject(
        str(tomo.collection.path), tomo.id, probs, classes, scene, level, memory_bytes
    )
    if kind == ".mp4":
        _make_movie(tomo, subject, scene, output, texts, executor, listen)
        return True
    stage = _new_stage(tomo, subject, listen)
    if kind == ".png":
        picture = _picture(stage, scene, listen)
        write_picture(output, picture, scene.output.bits, texts)
    else:
        rgba, depth = stage.render(scene, listen)
        write_exr(output, rgba, depth, dict(_opacities(stage, scene)), texts)
    return True


def made_texts(path: Path) -> dict[str, str]:
    """Give what a picture or movie of otzi carries; nothing of any other file."""
    if path.suffix.lower() == ".png":
        return read_texts(path)
    if path.suffix.lower() == ".exr":
        return read_exr_texts(path)
    try:
        texts: dict[str, str] = json.loads(read_comment(path))
    except ValueError:
        return {}
    return texts


def _picture(stage: Stage, scene: Scene, listen: Listener = ignore) -> NDArray[np.float32]:
    rgba, _ = stage.render(scene, listen)
    picture = display(rgba, scene.output, is_light=scene.quality.look == "physical")
    if scene.output.scale_bar:
        volume = stage.volume
        view = pose(scene.camera, scene.output.size, volume.extent_voxels)
        picture = with_scale_bar(picture, view.voxels_per_pixel * volume.voxel_angstrom)
    return picture


def _opacities(stage: Stage, scene: Scene) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the opacity of each class alone, unlit."""
    dark = replace(scene, light=Light(occlusion=0.0, shadow=0.0), keyframes=())
    for chosen in scene.classes:
        looks = tuple(
            look if look is chosen else replace(look, extinction=0.0) for look in scene.classes
        )
        rgba, _ = stage.render(replace(dark, classes=looks))
        yield chosen.name, rgba[..., 3]


class _Frame(NamedTuple):
    """One frame to be made."""

    subject: _Subject
    scene: Scene
    path: Path
    digest: str


def _make_movie(
    tomo: Tomogram,
    subject: _Subject,
    scene: Scene,
    output: Path,
    texts: dict[str, str],
    executor: Executor | None,
    listen: Listener,
) -> None:
    folder = output.with_name(f".{output.name}.frames")
    folder.mkdir(exist_ok=True)
    frames = [
        _Frame(subject, seen, folder / f"{n:06d}.png", f"{texts[_DIGEST]} {n}")
        for n, seen in enumerate(_frame_scenes(tomo, scene))
    ]
    missing = [f for f in frames if read_texts(f.path).get(_DIGEST) != f.digest]
    with step(listen, "frames", len(missing), "frames") as work:
        # Each frame takes all the cores of this process: one at a time, unless others compute.
        away = executor is not None and not executor.is_local
        made = (
            executor.each(_make_frame, missing) if executor and away else map(_make_frame, missing)
        )
        for _ in made:
            work.advance()
    with step(listen, "movie"):
        write_movie(
            output,
            (_read_frame(frame.path) for frame in frames),
            scene.output.size,
            scene.movie.fps,
            json.dumps(texts),
        )
    shutil.rmtree(folder, ignore_errors=True)


def _frame_scenes(tomo: Tomogram, scene: Scene) -> list[Scene]:
    """Give the scenes of all frames; a camera whose distance is open stays as far as any needs."""
    scenes = [frame_scene(scene, n) for n in range(scene.movie.frames)]
    if scene.camera.distance is not None:
        return scenes
    spacing = np.asarray(tomo.spacing_angstrom)
    extent = spacing / spacing.min() * tomo.shape
    poses = (pose(seen.camera, scene.output.size, extent) for seen in scenes)
    farthest = max(view.distance for view in poses) / float(extent.max())
    return [replace(seen, camera=replace(seen.camera, distance=farthest)) for seen in scenes]


def _make_frame(frame: _Frame) -> None:
    scene = frame.scene
    picture = _picture(_stage(frame.subject), scene)
    write_picture(frame.path, picture, 8, {_DIGEST: frame.digest})


@lru_cache(maxsize=1)
def _stage(subject: _Subject) -> Stage:
    """Give the stage of a tomogram, kept in each process for the next frame."""
    return _new_stage(open_collection(subject.collection)[subject.tomogram], subject)


def _new_stage(tomo: Tomogram, subject: _Subject, listen: Listener = ignore) -> Stage:
    scene = subject.scene
    source = VolumeSource(tomo, subject.probs, subject.classes, scene.density, subject.level)
    if is_affordable(source, subject.memory_bytes):
        return Stage(load_volume(source, listen))
    if scene.quality.look != "physical":
        raise UsageError(
            f"the look {scene.quality.look} is not streamed, and level {subject.level} of "
            f"{tomo.id} does not fit into {format_bytes(subject.memory_bytes)}: allow more with "
            "--memory, or take a coarser --level"
        )
    plan = stream_plan(source, scene, subject.memory_bytes)
    listen(
        Noted(
            f"level {subject.level} of {tomo.id} does not fit into "
            f"{format_bytes(subject.memory_bytes)}: streamed in bricks of {plan.brick_voxels} "
            "voxels, the picture is the same"
        )
    )
    return StreamedStage(source, plan.brick_voxels)


def _read_frame(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _texts(tomo: Tomogram, probs: str, scene: Scene, level: int) -> dict[str, str]:
    described = scene_toml(scene)
    source = {
        "tomogram": tomo.id,
        "probs": probs,
        "level": level,
        "digests": {name: tomo.digest(name) for name in ("raw", f"probs/{probs}")},
    }
    whole = json.dumps([_RULES, described, source], sort_keys=True)
    return {
        "Software": f"otzi {otzi.__version__}",
        "otzi scene": described,
        "otzi source": json.dumps(source),
        _DIGEST: hashlib.sha256(whole.encode()).hexdigest(),
    }
