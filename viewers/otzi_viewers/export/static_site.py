"""The files of a viewer without Python: pages, Neuroglancer's client, a state of each tomogram.

The client is that of the Neuroglancer package, which was built to talk to a Python server. Its page
here loads ``offline.js`` before it, which stands in for that server: it gives the state, and says
nothing more.
"""

from __future__ import annotations

import json
import shutil
from html import escape
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from otzi.errors import CannotCreate, ConfigurationError, disk_errors
from otzi.store.location import local_folder
from otzi_viewers.export.nginx import NGINX_FILE, nginx_configuration
from otzi_viewers.layers import tomogram_state
from otzi_viewers.pages.listing import list_tomograms
from otzi_viewers.pages.markup import list_page
from otzi_viewers.pages.thumbnails import thumbnail
from otzi_viewers.segmentation import Segmentation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.collection import Collection

__all__ = ["export_site"]

_COLLECTION = "{collection}"
"""Stands in a state for where the collection is served; the page puts the address in."""
_STATIC = Path(__file__).parents[1] / "pages" / "static"
_SCRIPTS = ("list.js", "otzi.css")
_CLIENT = Path("v") / "otzi"
"""The client looks for a token after ``/v/``."""


def export_site(collection: Collection, ids: Sequence[str], folder: Path) -> Path:
    """Write the viewer of some tomograms to a folder, and give its configuration of nginx.

    Parameters
    ----------
    collection
        In a local folder; it is not copied.
    ids
        Of the tomograms.
    folder
        New, empty, or of an earlier export, which is replaced.

    Raises
    ------
    CannotCreate
        If something else is in the folder.
    ConfigurationError
        If Neuroglancer is not installed, or a path cannot stand in a configuration.
    """
    place = local_folder(collection.path).resolve()
    folder = folder.resolve()
    configuration = nginx_configuration(folder, place)
    if folder.exists() and any(folder.iterdir()) and not (folder / NGINX_FILE).is_file():
        raise CannotCreate(f"{folder} is not empty and no export: choose another folder")
    with disk_errors(folder, "writing"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NGINX_FILE).write_text(configuration)
        for name in ("static", "states", "thumbnails", _CLIENT):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir(parents=True)
        for name in _SCRIPTS:
            shutil.copy(_STATIC / name, folder / "static" / name)
        _write_client(folder / _CLIENT)
        tomograms = [collection[id_] for id_ in ids]
        for tomo in tomograms:
            stored = Segmentation.of_view(tomo) if tomo.has("view") else None
            state = tomogram_state(tomo, _COLLECTION, segmentation=stored, only_stored=True)
            text = json.dumps(state.to_json())
            (folder / "states" / f"{tomo.id}.json").write_text(text)
            (folder / "thumbnails" / f"{tomo.id}.png").write_bytes(thumbnail(tomo))
        entries, damaged = list_tomograms(tomograms)
        page = list_page(
            place.name,
            entries,
            damaged,
            address=lambda id_, layout: f"{_CLIENT.as_posix()}/#{id_}" + (layout and f"/{layout}"),
            picture=lambda entry: f"thumbnails/{entry.id}.png?{entry.version}",
        )
        (folder / "index.html").write_text(page)
    return folder / NGINX_FILE


def _write_client(folder: Path) -> None:
    """Write Neuroglancer's client with its licence, and the page that starts it."""
    try:
        client = files("neuroglancer") / "static" / "client"
        package = distribution("neuroglancer")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "neuroglancer is not installed, the viewer needs it: pip install 'otzi[view]'"
        ) from error
    scripts: list[str] = []
    for file in sorted(client.iterdir(), key=lambda file: file.name):
        if file.name == "index.html":
            scripts = _scripts(file.read_text())
        elif not file.name.endswith(".map"):
            (folder / file.name).write_bytes(file.read_bytes())
    for entry in package.files or ():
        if entry.name == "LICENSE":
            (folder / "LICENSE.neuroglancer").write_bytes(Path(str(entry.locate())).read_bytes())
    shutil.copy(_STATIC / "offline.js", folder / "offline.js")
    styles = sorted(path.name for path in folder.glob("main.*.css"))
    links = "".join(f'<link rel="stylesheet" href="{escape(name)}">' for name in styles)
    (folder / "index.html").write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>otzi</title>{links}'
        f'<script src="offline.js" data-scripts="{escape(" ".join(scripts))}"></script>'
        "</head><body></body></html>\n"
    )


def _scripts(page: str) -> list[str]:
    """Give the scripts of Neuroglancer's own page, in their order."""
    return [part.partition('"')[0] for part in page.split('<script defer src="')[1:]]
