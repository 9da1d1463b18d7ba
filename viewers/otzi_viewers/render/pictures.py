"""Pictures of tomograms: stills, and movies frame by frame; each made once and carried on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import otzi
from otzi.arguments import only_probs
from otzi.errors import ConfigurationError, NotFoundError
from otzi.events import Listener, ignore
from otzi_viewers.render.device import AUTO, DrawingDevice
from otzi_viewers.render.exr import check_exr, read_exr_texts, write_exr
from otzi_viewers.render.film import check_codec, read_comment
from otzi_viewers.render.frames import make_movie
from otzi_viewers.render.framing import drawn_corners, framed
from otzi_viewers.render.movie import frame_scene
from otzi_viewers.render.output import DIGEST, check_output, read_texts, write_picture
from otzi_viewers.render.post import shown
from otzi_viewers.render.scene import Light, Scene, scene_toml
from otzi_viewers.render.source import world_extent
from otzi_viewers.render.subject import Subject, new_stage
from otzi_viewers.render.transfer import complete_scene
from otzi_viewers.render.volume import affordable_level
from otzi_viewers.saved_style import with_saved_style

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from otzi.execute import Executor
    from otzi.tomogram import Tomogram
    from otzi_viewers.render.device import Drawer

__all__ = ["made_texts", "render_tomogram"]

_NEAR_VOXELS = 2
_HIDDEN_SHARE = 0.99
_RULES = 3
"""Raised whenever the same scene and data give another picture."""


def render_tomogram(
    tomo: Tomogram,
    output: Path,
    *,
    probs: str | None = None,
    scene: Scene | None = None,
    level: int | None = None,
    memory_bytes: int = 10**9,
    executor: Executor | None = None,
    snapshots: bool = False,
    device: DrawingDevice = AUTO,
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
    snapshots
        Whether to write a still also before it is done, whenever it has twice as many rays.
    device
        Where to draw.
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
    DeviceUnavailable
        If the device is not here.
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
    if output.is_file() and made_texts(output).get(DIGEST) == texts[DIGEST]:
        return False
    subject = Subject(
        str(tomo.collection.path), tomo.id, probs, classes, scene, level, memory_bytes, device
    )
    frames = [scene]
    if kind == ".mp4":
        frames = [frame_scene(scene, n) for n in range(scene.movie.frames)]
    if scene.camera.target is None or scene.camera.distance is None:
        corners = drawn_corners(tomo, probs, scene, level, listen)
        frames = framed(frames, corners, world_extent(tomo))
    if kind == ".mp4":
        make_movie(tomo, subject, frames, scene.movie.fps, output, texts, executor, listen)
    else:
        _make_still(new_stage(tomo, subject, listen), frames[0], output, texts, snapshots, listen)
    return True


def _make_still(
    stage: Drawer,
    scene: Scene,
    output: Path,
    texts: dict[str, str],
    snapshots: bool,
    listen: Listener,
) -> None:
    def write(
        rgba: NDArray[np.float32],
        depth: NDArray[np.float32],
        opacities: Mapping[str, NDArray[np.float32]],
        said: Mapping[str, str],
    ) -> None:
        _check_view(depth / stage.volume.voxel_angstrom, scene)
        if output.suffix.lower() == ".png":
            write_picture(output, shown(rgba, scene, stage.volume), scene.output.bits, said)
        else:
            write_exr(output, rgba, depth, opacities, said)

    def snapshot(n_samples: int, rgba: NDArray[np.float32], depth: NDArray[np.float32]) -> None:
        if n_samples < scene.quality.spp:
            # Without its digest: the picture is not done, and the next run makes it.
            unfinished = {key: text for key, text in texts.items() if key != DIGEST}
            write(rgba, depth, {}, unfinished | {"otzi rays per pixel": str(n_samples)})

    rgba, depth = stage.render(scene, listen, snapshot if snapshots else None)
    is_exr = output.suffix.lower() == ".exr"
    write(rgba, depth, dict(_opacities(stage, scene)) if is_exr else {}, texts)


def _check_view(depth_voxels: NDArray[np.float32], scene: Scene) -> None:
    """Refuse a picture in which all is hidden right before the eye."""
    is_near = depth_voxels < _NEAR_VOXELS
    if scene.camera.projection == "perspective" and is_near.mean() > _HIDDEN_SHARE:
        raise ConfigurationError(
            f"the camera is inside what is drawn: {is_near.mean():.0%} of the picture is less than "
            f"{_NEAR_VOXELS} voxels away; move it (camera.distance, camera.target), or cut classes "
            "open (clip)"
        )


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


def _opacities(stage: Drawer, scene: Scene) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the opacity of each class alone, unlit."""
    dark = replace(scene, light=Light(occlusion=0.0, shadow=0.0), keyframes=())
    for chosen in scene.classes:
        looks = tuple(
            look if look is chosen else replace(look, extinction=0.0) for look in scene.classes
        )
        rgba, _ = stage.render(replace(dark, classes=looks))
        yield chosen.name, rgba[..., 3]


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
        DIGEST: hashlib.sha256(whole.encode()).hexdigest(),
    }
