"""Verb export: a product as an MRC file, as IMOD and ChimeraX read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otzi.arguments import CollectionArgument, TomogramArgument
from otzi.box import tile
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import CannotCreate, NotFoundError
from otzi.events import Listener, ignore, step
from otzi.mrc_writer import writing_mrc
from otzi_pipelines.export_plan import DoesNotFit, Values, image_of, name_files, values_of

if TYPE_CHECKING:
    from otzi.mrc_writer import MrcImage
    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram

__all__ = ["command", "export_mrc"]

_STRIP_BYTES = 32 * 2**20


def export_mrc(
    tomo: Tomogram,
    product: str,
    path: str | Path,
    *,
    classes: tuple[str, ...] = (),
    level: int = 0,
    stored: bool = False,
    force: bool = False,
    listen: Listener = ignore,
) -> tuple[Path, ...]:
    """Write a product to an MRC file, or each of its classes to one; give the files.

    Densities are written in the source's type, float32 if they were stored by fewer bits; hard
    labels in the narrowest of modes 0, 1 and 6; probabilities and soft labels as float32.

    Parameters
    ----------
    tomo, product
        ``raw``, ``labels/NAME`` …
    path
        The file; ``{class}`` in it stands for the name of the class.
    classes
        Which classes of a product that has them; all, where `path` says ``{class}``.
    level
        Of the pyramid: 0 is the finest.
    stored
        Write what is stored, of ``raw`` and probabilities too.
    force
        Replace files that are there.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If there is no such product, class or level.
    UsageError
        If the classes of a product need more files than are named.
    CannotCreate, OutOfSpace, AccessDenied, TemporaryFailure
        If a file cannot be written, or no mode of MRC holds the numbers; it is not there then, not
        even in part.
    """
    image = tomo.image(product)
    if not 0 <= level < image.n_levels:
        raise NotFoundError(
            f"no level {level} of {product} of {tomo.id}: there are 0 to {image.n_levels - 1}"
        )
    files = name_files(str(path), image.channels, classes, product)
    for file in files.values():
        if file.exists() and not force:
            raise CannotCreate(f"{file} is there already: pass --force to replace it")
    array = tomo.array(product, level)
    for name, file in files.items():
        values = values_of(tomo, product, name, stored=stored)
        for dtype in values.dtypes:
            try:
                target = image_of(tomo, product, values, dtype, level)
                _write(array, values, file, target, force=force, listen=listen)
                break
            except DoesNotFit:
                continue
        else:
            raise CannotCreate(
                f"{file}: {product} of {tomo.id} has numbers above 65535, which no mode of MRC "
                "holds: export another product"
            )
    return tuple(files.values())


def _write(
    array: LevelArray,
    values: Values,
    file: Path,
    target: MrcImage,
    *,
    force: bool,
    listen: Listener,
) -> None:
    """Write strips of whole rows and chunks, a few MB each, whatever the size of a plane."""
    depth, rows = array.chunk[-3:-1]
    layer_bytes = depth * rows * target.shape[2] * 4
    strip = (depth, rows * max(1, _STRIP_BYTES // layer_bytes), target.shape[2])
    boxes = list(tile(target.shape, strip))
    channel = () if values.channel is None else (values.channel,)
    with (
        step(listen, f"export {file.name}", len(boxes), "strips") as work,
        writing_mrc(file, target, force=force) as writer,
    ):
        for box in boxes:
            writer[box] = values.of(array[(*channel, *box.slices)], target.dtype)
            work.advance()


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomogram: TomogramArgument,
    product: Annotated[str, typer.Argument(help="raw, labels/NAME, probs/NAME …")],
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.mrc", help="Where to; {class} stands for a class's name."),
    ],
    *,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Class of a product that has classes."),
    ] = None,
    level: Annotated[int, typer.Option(help="Level of the pyramid; 0 is the finest.")] = 0,
    stored: Annotated[
        bool, typer.Option("--stored", help="What is stored, not the value that it stands for.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write a product to an MRC file: density, hard labels, or the probability of a class."""
    files = export_mrc(
        open_collection(collection)[tomogram],
        product,
        file,
        classes=tuple(classes or ()),
        level=level,
        stored=stored,
        force=force,
        listen=console,
    )
    console.result({"files": [str(path) for path in files]}, "\n".join(map(str, files)))
