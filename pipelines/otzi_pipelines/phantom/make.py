"""Phantoms: a specimen, its recording and its strokes, from one seed for each."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.classes import DEFAULT_CLASSES
from otzi.errors import CannotCreate, UsageError, disk_errors
from otzi.events import Listener, ignore, step
from otzi.files import check_space
from otzi.mrc_writer import MrcImage, writing_mrc
from otzi.strokes import write_strokes
from otzi_pipelines.ingest.source_files import sha256_of
from otzi_pipelines.phantom.files import PhantomFiles, digest_of
from otzi_pipelines.phantom.hand import draw_strokes
from otzi_pipelines.phantom.microscope import Exposure, Recording, develop, record
from otzi_pipelines.phantom.particles import read_template
from otzi_pipelines.phantom.settings import PhantomSettings
from otzi_pipelines.phantom.specimen import Scene, Specimen

if TYPE_CHECKING:
    from otzi_pipelines.phantom.particles import Template

__all__ = ["make_phantoms"]

_FORMAT = 1
"""Raised whenever the same settings would give other voxels."""
_STRIP_PLANES = 16
_STANDS_OUT = 0.5


def make_phantoms(
    folder: str | Path,
    settings: PhantomSettings | None = None,
    *,
    count: int = 1,
    listen: Listener = ignore,
) -> tuple[dict[str, Any], ...]:
    """Write phantoms; give for each its id, its files, and ``made`` or ``done`` (before).

    The voxels of phantom i depend on the settings and on i, never on `count`. Memory is that of one
    volume at a time, 27 bytes for each of its voxels.

    Parameters
    ----------
    folder
        Gets folders ``tomograms``, ``labels``, ``strokes`` and ``cards``; it is made if need be.
    settings
        What decides the voxels.
    count
        How many there are to be.
    listen
        Told of the progress.

    Raises
    ------
    UsageError
        If `count` is below 1.
    NotFoundError, SourceError
        If a particle's file is not there, or no density.
    CannotCreate
        If other phantoms of the same name, or other files, are there; nothing is written then.
    OutOfSpace, AccessDenied, TemporaryFailure
        If the file system fails; phantoms that are whole stay.
    """
    settings = settings or PhantomSettings()
    if count < 1:
        raise UsageError(f"count = {count}: give at least 1")
    folder = Path(folder)
    templates = tuple(
        read_template(kind.file, settings.voxel_size_angstrom)
        for kind in settings.specimen.particles
    )
    recipes = {
        PhantomFiles(folder, f"{settings.name}_{i:03d}"): _recipe(settings, i) for i in range(count)
    }
    is_made = {files: files.is_made(recipe) for files, recipe in recipes.items()}
    _check_place(folder, settings, n_volumes=count - sum(is_made.values()))
    report = []
    with step(listen, "phantoms", count, "volumes") as work:
        for files, recipe in recipes.items():
            if not is_made[files]:
                _make(files, recipe, settings, templates)
            work.advance()
            state = "done" if is_made[files] else "made"
            report.append({**files.to_json(), "state": state})
    return tuple(report)


def _recipe(settings: PhantomSettings, index: int) -> dict[str, Any]:
    """Give all that decides the voxels of a phantom, as plain JSON."""
    recipe: dict[str, Any] = {"format": _FORMAT, "index": index, "settings": asdict(settings)}
    for particle in recipe["settings"]["specimen"]["particles"]:
        particle["sha256"] = sha256_of(Path(particle["file"]))
        particle["file"] = Path(particle["file"]).name
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


def _make(
    files: PhantomFiles,
    recipe: dict[str, Any],
    settings: PhantomSettings,
    templates: tuple[Template, ...],
) -> None:
    sequence = np.random.SeedSequence(settings.seed, spawn_key=(recipe["index"],))
    # One generator for each part: more noise leaves the specimen as it is.
    of_specimen, of_exposure, of_noise, of_strokes = map(np.random.default_rng, sequence.spawn(4))
    specimen = Specimen.draw(settings, templates, of_specimen)
    scene = specimen.render(settings)
    exposure = Exposure.draw(settings.microscope, of_exposure)
    with files.staged() as new:
        stands_out = (scene.density > _STANDS_OUT) | (scene.gold > _STANDS_OUT)
        write_strokes(
            new.strokes,
            draw_strokes(scene.labels, stands_out, settings.strokes, files.id, of_strokes),
        )
        del stands_out
        recording = record(scene, settings, exposure, of_noise)
        _write(new, recipe, settings, scene, recording, exposure)
        counts = np.bincount(scene.labels.ravel(), minlength=len(DEFAULT_CLASSES) + 1)[1:]
        card = {
            "id": files.id,
            "digest": digest_of(recipe),
            "recipe": recipe,
            "exposure": asdict(exposure),
            "specimen": specimen.to_json(settings.voxel_size_angstrom),
            "voxels": dict(zip(DEFAULT_CLASSES.names, map(int, counts), strict=True)),
            "sha256": new.sha256(),
        }
        new.card.write_text(json.dumps(card, indent=1) + "\n")


def _write(
    files: PhantomFiles,
    recipe: dict[str, Any],
    settings: PhantomSettings,
    scene: Scene,
    recording: Recording,
    exposure: Exposure,
) -> None:
    said = f"otzi phantom, seed {settings.seed}, volume {recipe['index']}"
    classes = ", ".join(f"{i} {name}" for i, name in enumerate(DEFAULT_CLASSES.names, 1))
    spacing = (settings.voxel_size_angstrom,) * 3
    grey = MrcImage(settings.size, np.dtype(settings.dtype), spacing, labels=(said,))
    truth = MrcImage(settings.size, np.dtype(np.int8), spacing, labels=(said, classes))
    with writing_mrc(files.tomogram, grey) as tomogram, writing_mrc(files.labels, truth) as labels:
        n_z, n_y, n_x = settings.size
        for z in range(0, n_z, _STRIP_PLANES):
            box = Box((z, 0, 0), (min(z + _STRIP_PLANES, n_z), n_y, n_x))
            tomogram[box] = develop(recording, settings, exposure, box.slices[0])
            labels[box] = scene.labels[box.slices].astype(np.int8)


def _check_place(folder: Path, settings: PhantomSettings, n_volumes: int) -> None:
    """Make the folder, and see that there is space for what is to be made."""
    if folder.exists() and not folder.is_dir():
        raise CannotCreate(f"{folder} is a file: name a folder")
    with disk_errors(folder, "making"):
        folder.mkdir(parents=True, exist_ok=True)
    needed_bytes = n_volumes * prod(settings.size) * (np.dtype(settings.dtype).itemsize + 1)
    wish = "1 phantom needs" if n_volumes == 1 else f"{n_volumes} phantoms need"
    check_space(folder, needed_bytes, wish, "pass a smaller --count or --size")
