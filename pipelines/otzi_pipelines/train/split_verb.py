"""Verb split: which tomograms are learnt from, judged by, and kept for the end."""

from __future__ import annotations

from typing import Annotated

import typer

from otzi.arguments import CollectionArgument, TomogramsArgument, chosen_tomograms
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import NotFoundError, UsageError
from otzi.split import PARTS, Split, read_split, write_split
from otzi_pipelines.train.split import split_evenly

__all__ = ["command"]

_Share = Annotated[float | None, typer.Option(help="Its share of all tomograms.", min=0, max=1)]


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomograms: TomogramsArgument = None,
    train: _Share = None,
    val: _Share = None,
    test: _Share = None,
    seed: Annotated[int, typer.Option(help="Of who comes into which part.", min=0)] = 0,
    into: Annotated[
        str | None, typer.Option(help="Put the tomograms named into this part.", metavar="PART")
    ] = None,
    anew: Annotated[bool, typer.Option(help="Forget the parts that tomograms have.")] = False,
) -> None:
    """Set tomograms aside for training, validation and test, or show who is in which part."""
    shares = dict(zip(PARTS, (train, val, test), strict=True))
    is_shared = any(share is not None for share in shares.values())
    if is_shared and (into or tomograms):
        raise UsageError("shares are of all tomograms: leave out TOMO and --into")
    if bool(into) != bool(tomograms):
        raise UsageError("name tomograms and --into train, val or test together")
    col = open_collection(collection, "r+" if is_shared or into else "r")
    split = None if anew else read_split(col)
    if is_shared:
        wanted = {part: share or 0.0 for part, share in shares.items()}
        split = split_evenly(col.ids, wanted, seed, split)
    elif into:
        ids = [tomo.id for tomo in chosen_tomograms(col, tomograms)]
        split = (split or Split({})).moved(ids, into)  # type: ignore[arg-type]
    elif split is None:
        raise NotFoundError(
            f"{col.path} has no split: otzi split {col.path} --train 0.8 --val 0.1 --test 0.1"
        )
    if is_shared or into:
        write_split(col, split)
    rest = [id_ for id_ in col.ids if id_ not in split.parts]
    document = {part: list(split.of(part)) for part in PARTS} | {"unassigned": rest}
    console.result(
        document, "\n".join(f"{part}  {' '.join(ids)}" for part, ids in document.items())
    )
