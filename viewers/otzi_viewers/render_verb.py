"""Verb render: a picture of a tomogram's classes as a PNG file."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import otzi
from otzi.arguments import CollectionArgument, ProbsOption, TomogramArgument, only_probs
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import DeviceUnavailable, NotFoundError, UsageError
from otzi.events import Listener, ignore
from otzi.memory import parse_bytes
from otzi.networks.weights import Device
from otzi.settings import load_settings
from otzi_viewers.render.output import check_output, read_texts, write_picture
from otzi_viewers.render.scene import Output, Quality, Scene, scene_toml

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram

__all__ = ["command", "render_tomogram"]

MAXIMUM_RAYS = 40_000_000
"""Without ``--slow``: some two minutes on two cores for a cell of 10 million voxels."""

_RULES = 1
"""Raised whenever the same scene and data give another picture."""

_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")


def render_tomogram(
    tomo: Tomogram,
    output: Path,
    *,
    probs: str | None = None,
    scene: Scene | None = None,
    memory_bytes: int = 10**9,
    listen: Listener = ignore,
) -> bool:
    """Write a picture of a tomogram; tell whether there was work to do.

    The file carries its scene as TOML (text ``otzi scene``) and a digest of all it depends on
    (``otzi digest``): a picture that is there already is not computed again.

    Parameters
    ----------
    tomo
        With probabilities and, where the scene leaves left limits open, ramps.
    output
        The PNG file; one that is there is replaced.
    probs
        Name of the probabilities; may be left out where there is one.
    scene
        What to draw and how; what it leaves open is taken from the tomogram.
    memory_bytes
        For the volume; decides the pyramid level.
    listen
        Told of the progress.

    Raises
    ------
    UsageError, CannotCreate
        If no picture can be written to `output`, or there are several probabilities.
    NotFoundError
        If there are no probabilities, or what `complete_scene` looks for is not there.
    MemoryBudgetError
        If not even the coarsest level fits.
    """
    from otzi_viewers.render.camera import pose
    from otzi_viewers.render.cpu import render
    from otzi_viewers.render.post import display
    from otzi_viewers.render.scale_bar import with_scale_bar
    from otzi_viewers.render.transfer import complete_scene
    from otzi_viewers.render.volume import affordable_level, load_volume

    check_output(output)
    probs = probs or only_probs(tomo)
    if probs is None:
        raise NotFoundError(f"{tomo.id} has no probabilities to draw: run `otzi segment`")
    scene = complete_scene(scene or Scene(), tomo, probs)
    classes = [look.name for look in scene.classes]
    level = affordable_level(tomo, probs, len(classes), memory_bytes)
    texts = _texts(tomo, probs, scene, level)
    if read_texts(output).get("otzi digest") == texts["otzi digest"]:
        return False
    volume = load_volume(tomo, probs, classes, scene.density, level, listen)
    rgba, _ = render(volume, scene, listen=listen)
    picture = display(rgba, scene.output)
    if scene.output.scale_bar:
        view = pose(scene.camera, scene.output.size, volume.extent_voxels)
        picture = with_scale_bar(picture, view.voxels_per_pixel * volume.voxel_angstrom)
    write_picture(output, picture, scene.output.bits, texts)
    return True


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
        "otzi digest": hashlib.sha256(whole.encode()).hexdigest(),
    }


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text)
    if not match or not all(1 <= int(n) <= 16384 for n in match.groups()):
        raise UsageError(f"size {text!r}: write it as 960x720, at most 16384 each way")
    return int(match[1]), int(match[2])


def _check_work(output: Output, quality: Quality) -> None:
    width, height = output.size
    rays = width * height * quality.spp
    if rays > MAXIMUM_RAYS:
        raise UsageError(
            f"{width}x{height} pixels of {quality.spp} rays are {rays / 1e6:.0f} million rays, "
            f"more than {MAXIMUM_RAYS / 1e6:.0f} million: take a smaller --size or quality.spp, or "
            "pass --slow and wait"
        )


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomogram: TomogramArgument,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture, a .png file.")],
    probs: ProbsOption = None,
    scene: Annotated[Path | None, typer.Option(help="Scene file (TOML).")] = None,
    size: Annotated[str | None, typer.Option(help="Width x height, such as 960x720.")] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    memory: Annotated[str, typer.Option(help="For the volume.")] = "1GB",
    slow: Annotated[bool, typer.Option("--slow", help="Allow pictures that take long.")] = False,
) -> None:
    """Draw a still of the classes of a tomogram, lit, as a PNG file."""
    check_output(output)
    if device == "cuda":
        raise DeviceUnavailable(
            "this release renders on the CPU only: use --device cpu, or leave --device out"
        )
    if device == "auto" and _NVIDIA_GPUS.is_dir():
        console.say("drawing on the CPU: this release does not use the GPU that is here")
    chosen = load_settings(Scene, scene) if scene else Scene()
    if size is not None:
        chosen = replace(chosen, output=replace(chosen.output, size=_size(size)))
    if not slow:
        _check_work(chosen.output, chosen.quality)
    tomo = open_collection(collection)[tomogram]
    made = render_tomogram(
        tomo,
        output,
        probs=probs,
        scene=chosen,
        memory_bytes=parse_bytes(memory),
        listen=console,
    )
    if not made:
        console.say(f"{output} is done already")
    texts = read_texts(output)
    document: dict[str, Any] = {
        "path": str(output),
        "size": list(chosen.output.size),
        "digest": texts["otzi digest"],
        **json.loads(texts["otzi source"]),
    }
    console.result(document, str(output))
