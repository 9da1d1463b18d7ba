"""Arguments that many verbs take, and what they mean where they are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from otzi.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

__all__ = [
    "CollectionArgument",
    "ExecutorOption",
    "ProbsOption",
    "TomogramArgument",
    "TomogramsArgument",
    "chosen_tomograms",
    "only_probs",
]

CollectionArgument = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION", help="The collection: a folder, or a URL as s3://BUCKET/NAME."
    ),
]
"""As typed: a path would lose a slash of ``s3://``."""
TomogramArgument = Annotated[str, typer.Argument(metavar="TOMO", help="The tomogram's id.")]
TomogramsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="TOMO", help="Tomograms; all if left out.")
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        metavar="local|processes[:N]|tcp://HOST:PORT|slurm:FILE|k8s:FILE",
        help="What computes: threads, processes of this machine, or a cluster.",
    ),
]
ProbsOption = Annotated[
    str | None, typer.Option(help="Name of the probabilities, where there are several.")
]


def chosen_tomograms(collection: Collection, ids: Sequence[str] | None) -> list[Tomogram]:
    """Give the tomograms with these ids; all if there are no ids.

    Raises
    ------
    NotFoundError
        If one is not there, or the collection has none at all.
    """
    if not (chosen := ids or collection.ids):
        path = collection.path
        raise NotFoundError(f"{path} has no tomograms: run `otzi ingest {path} FILE.mrc`")
    return [collection[id_] for id_ in chosen]


def only_probs(tomo: Tomogram) -> str | None:
    """Give the name of a tomogram's probabilities; None where there are none.

    Raises
    ------
    UsageError
        If there are several; the message lists them.
    """
    names = [name.partition("/")[2] for name in tomo.products if name.startswith("probs/")]
    if len(names) > 1:
        raise UsageError(f"{tomo.id} has several probabilities: choose --probs {'|'.join(names)}")
    return names[0] if names else None
