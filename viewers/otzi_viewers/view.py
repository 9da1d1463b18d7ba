"""Verb view: a tomogram in Neuroglancer, served to this machine's browser."""

from __future__ import annotations

import signal
import webbrowser
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from otzi.arguments import CollectionArgument, ProbsOption, chosen_tomograms
from otzi.cli import call, verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import AccessDenied, ConfigurationError, CorruptShard, Locked, NotFoundError
from otzi.store.location import local_folder
from otzi_viewers.layers import tomogram_state
from otzi_viewers.server import view_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otzi.tomogram import Tomogram

__all__ = ["check_files", "command"]

_PRODUCT_VERB = "view-product"


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomogram: Annotated[
        str | None, typer.Argument(metavar="TOMO", help="The tomogram; the first if left out.")
    ] = None,
    *,
    probs: ProbsOption = None,
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 for any free one.")] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address and open no browser.")
    ] = False,
) -> None:
    """Show a tomogram and its classes in Neuroglancer until Ctrl-C: slices and 3-D."""
    col = open_collection(collection)
    folder = local_folder(col.path)
    tomo = chosen_tomograms(col, [tomogram] if tomogram else None)[0]
    if probs is not None:
        tomo.path(f"probs/{probs}")  # without them there is nothing to go on with
    _prepare(tomo, probs, console)
    check_files(tomo)
    with _terminated() as stop, view_server(port) as server:
        state = tomogram_state(tomo, server.serve(folder, console))
        if not state.layers:
            raise ConfigurationError(
                f"raw of {tomo.id} is {tomo.array('raw').dtype}, which no browser can show: run "
                f"`otzi {_PRODUCT_VERB} {col.path} {tomo.id}`"
            )
        url = server.show(state).get_viewer_url()
        console.result({"url": url, "tomogram": tomo.id, "tomograms": list(col.ids)}, url)
        if len(col) > 1:
            console.say(f"{tomo.id} of {', '.join(col.ids)}")
        console.say("press Ctrl-C to stop")
        if not no_browser:
            webbrowser.open(url)
        stop.wait()


def _prepare(tomo: Tomogram, probs: str | None, console: Console) -> None:
    """Have the product made or brought up to date; go on with what is there if that cannot be."""
    path = tomo.collection.path
    try:
        call(_PRODUCT_VERB, console, collection=path, tomograms=[tomo.id], probs=probs)
    except (AccessDenied, Locked, NotFoundError) as error:
        shown = "an older view" if tomo.has("view") else "the raw density alone"
        console.warn(f"showing {shown}: {error}")


def check_files(tomo: Tomogram) -> None:
    """Look at the files of what will be shown: in the browser a missing one is a black patch.

    Raises
    ------
    CorruptShard
        If one is missing or has another size than was written.
    """
    for product in ("raw", "view"):
        for name, (n_bytes, _) in tomo.manifest(product).items() if tomo.has(product) else ():
            path = local_folder(tomo.path(product)) / name
            found = path.stat().st_size if path.is_file() else None
            if found != n_bytes:
                state = "is missing" if found is None else f"has {found} bytes, not {n_bytes}"
                raise CorruptShard(f"{path} {state}: make {product} of {tomo.id} again")


@contextmanager
def _terminated() -> Iterator[Event]:
    """Give an event that is set by SIGTERM, which then ends nothing else."""
    stop = Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
