"""Verb view: a collection in Neuroglancer, served to this machine's browser."""

from __future__ import annotations

import signal
import webbrowser
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import typer

from otzi.arguments import CollectionArgument, ProbsOption, chosen_tomograms
from otzi.cli import call, verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import (
    AccessDenied,
    ConfigurationError,
    CorruptShard,
    Locked,
    NotFoundError,
    UsageError,
)
from otzi.store.location import local_folder
from otzi.viewable import is_viewable_dtype
from otzi_viewers.export.static_site import export_site
from otzi_viewers.pages.website import Site
from otzi_viewers.segmentation import Segmentation
from otzi_viewers.server import LOOPBACK, view_server
from otzi_viewers.state import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

__all__ = ["check_files", "command"]

_PRODUCT_VERB = "view-product"


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomogram: Annotated[
        str | None,
        typer.Argument(metavar="TOMO", help="A tomogram; of several the list if left out."),
    ] = None,
    *,
    probs: ProbsOption = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Probabilities, or labels/NAME, to show beside them."),
    ] = None,
    layout: Annotated[Layout, typer.Option(help="Of the panels.")] = "4panel",
    port: Annotated[int, typer.Option(help="0 for any free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="Name or address by which other machines reach this one.")
    ] = LOOPBACK,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a viewer for any web server instead."),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address and open no browser.")
    ] = False,
) -> None:
    """Show tomograms and their classes in the browser until Ctrl-C: slices and 3-D."""
    col = open_collection(collection)
    local_folder(col.path)
    shown = chosen_tomograms(col, [tomogram] if tomogram else None)
    if export is not None:
        _export(col, shown, export, probs, console)
        return
    if len(shown) > 1 and (probs is not None or compare is not None):
        raise UsageError("--probs and --compare are for one tomogram: name it after the collection")
    page = _page(shown[0], probs, compare, layout, console) if len(shown) == 1 else ""
    with _terminated() as stop, view_server(port, host) as server:
        if host != LOOPBACK:
            console.warn(f"whoever listens to the network of {host} can read this: it is no https")
        site = Site(server, col, console)
        url = site.url + page
        tomograms = [tomo.id for tomo in shown]
        console.result({"url": url, "tomograms": tomograms}, url)
        console.say("press Ctrl-C to stop")
        if not no_browser:
            webbrowser.open(url)
        try:
            stop.wait()
        finally:
            site.close()


def _export(
    col: Collection, tomograms: list[Tomogram], folder: Path, probs: str | None, console: Console
) -> None:
    """Write the static viewer of tomograms whose products are brought up to date before."""
    for tomo in tomograms:
        _prepare(tomo, probs, console)
        check_files(tomo)
    ids = [tomo.id for tomo in tomograms]
    configuration = export_site(col, ids, folder)
    document = {"path": str(folder), "nginx": str(configuration), "tomograms": ids}
    console.result(document, str(folder))
    console.say(f"nginx -c {configuration}")


def _page(
    tomo: Tomogram, probs: str | None, compare: str | None, layout: Layout, console: Console
) -> str:
    """Give the address of a tomogram's page below the list, all that it shows being there."""
    wish: dict[str, str] = {"layout": layout}
    if probs is not None:
        tomo.path(f"probs/{probs}")  # without them there is nothing to go on with
        wish["segmentation"] = f"probs/{probs}"
    if compare is not None:
        product = compare if "/" in compare else f"probs/{compare}"
        wish["beside"] = Segmentation.of(tomo, product).product or product
    _prepare(tomo, probs, console)
    check_files(tomo)
    if not tomo.has("view") and not is_viewable_dtype(tomo.array("raw").dtype):
        raise ConfigurationError(
            f"raw of {tomo.id} is {tomo.array('raw').dtype}, which no browser can show: run "
            f"`otzi {_PRODUCT_VERB} {tomo.collection.path} {tomo.id}`"
        )
    return f"show/{tomo.id}?{urlencode(wish)}"


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
