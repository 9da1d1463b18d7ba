"""A collection in the browser: its list, its open tomograms, and what they ask for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from getpass import getuser
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from otzi.errors import NotFoundError
from otzi.events import Listener, ignore
from otzi.store.location import local_folder
from otzi_viewers.figure import make_figure
from otzi_viewers.layers import Addresses
from otzi_viewers.pages.curves import curves_figure, threshold_curves
from otzi_viewers.pages.listing import list_tomograms
from otzi_viewers.pages.markup import list_page, workspace_page
from otzi_viewers.pages.thumbnails import Thumbnails, thumbnail
from otzi_viewers.segmentation import Segmentation
from otzi_viewers.stacked import StackedImage
from otzi_viewers.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otzi.collection import Collection
    from otzi_viewers.server import ViewServer

__all__ = ["Site"]

_THREADS = 8
"""Some wait for a browser that asks for more meanwhile."""
_STATIC = Path(__file__).parent / "static"


class Site:
    """The pages of a collection on a server that runs.

    Parameters
    ----------
    server
        It runs as long as the site is used.
    collection
        In a local folder.
    listen
        Told of what cannot be shown.
    """

    def __init__(
        self, server: ViewServer, collection: Collection, listen: Listener = ignore
    ) -> None:
        from otzi_viewers.pages import routes

        self._server, self._collection, self._listen = server, collection, listen
        self._open: dict[str, Workspace] = {}
        self._stacked: dict[tuple[str, str, str], StackedImage] = {}
        self._thumbnails = Thumbnails()
        self._lock = Lock()
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="otzi-pages")
        """Where requests are worked on, while the server answers others."""
        self.is_closed = False
        here = {"site": self}
        product = r"((?:probs|labels)/[^/]+)/([0-9]+)"
        self.url = (
            server.mount(
                "otzi",
                [
                    ("", routes.ListRoute, here),
                    ("static/(.*)", routes.StaticRoute, {"path": str(_STATIC)}),
                    ("thumbnails/([^/]+)", routes.ThumbnailRoute, here),
                    ("show/([^/]+)", routes.OpenRoute, here),
                    ("api/([^/]+)/([a-z]+)", routes.ActionRoute, here),
                ],
            )
            + "/"
        )
        """Of the list; the page of a tomogram is ``show/ID`` below it."""
        stacked = server.mount("stacked", [(f"([^/]+)/{product}/(.*)", routes.StackedRoute, here)])
        data = server.serve(local_folder(collection.path), listen)
        self._addresses = Addresses(data, stacked)

    def list_page(self) -> str:
        """Give the page that lists the tomograms as they are now."""
        entries, damaged = list_tomograms(self._collection)
        return list_page(self._collection.path.name, entries, damaged)

    def thumbnail(self, id_: str, version: str) -> bytes:
        """Give a tomogram's picture, which is new when the version is."""
        tomo = self._collection[id_]
        return self._thumbnails.get((id_, version), lambda: thumbnail(tomo))

    def workspace(self, id_: str) -> Workspace:
        """Give an open tomogram; it is opened the first time."""
        with self._lock:
            if id_ not in self._open:
                tomo = self._collection[id_]
                self._open[id_] = Workspace(
                    self._server, tomo, self._addresses, getuser(), self._listen
                )
            return self._open[id_]

    def workspace_page(self, id_: str, wish: Mapping[str, Any]) -> str:
        """Give the page of a tomogram, shown as is wished."""
        workspace = self.workspace(id_)
        workspace.prepare()
        if wish:
            workspace.show(wish)
        tomo, status = workspace.tomogram, workspace.status()
        colors = {c.name: c.color for c in tomo.classes}
        curves = threshold_curves(tomo, status["segmentation"])
        return workspace_page(
            tomo.id,
            {
                "shape": tomo.shape,
                "spacing_angstrom": tomo.spacing_angstrom,
                "status": status,
            },
            tomo.classes,
            workspace.viewer.get_viewer_url(),
            curves_figure(curves, colors) if curves else "",
        )

    def act(self, id_: str, action: str, wish: Mapping[str, Any]) -> dict[str, Any] | bytes:
        """Do what a page wants: give the status after it, or the figure.

        Raises
        ------
        NotFoundError
            If the tomogram is not open, or there is no such action.
        """
        if (workspace := self._open.get(id_)) is None:
            raise NotFoundError(f"{id_} is not open: reload the page")
        actions: dict[str, Callable[[], object]] = {
            "status": lambda: None,
            "show": lambda: workspace.show(wish),
            "draw": lambda: workspace.draw(wish),
            "undo": workspace.undo,
            "save": workspace.save,
            "label": workspace.label,
            "report": lambda: workspace.report(wish),
        }
        if action == "figure":
            return make_figure(workspace.viewer, workspace.source())
        if action not in actions:
            raise NotFoundError(f"no action {action!r}: there are {', '.join(actions)}, figure")
        actions[action]()
        return workspace.status()

    def stacked_file(self, id_: str, product: str, generation: str, path: str) -> bytes | None:
        """Give a file of the image of a soft product; None if there is none of this name.

        Raises
        ------
        NotFoundError
            If that generation is not the published one any more.
        """
        key = (id_, product, generation)
        image = self._stacked.get(key)
        if image is None:
            tomo = self._collection[id_]
            if tomo.path(product).name != generation:
                raise NotFoundError(f"{product} of {id_} is a newer one: reload the page")
            image = StackedImage(tomo, Segmentation.of(tomo, product))
            self._stacked[key] = image
        return image.file(path)

    def close(self) -> None:
        """Stop what runs; what is asked from now on is refused."""
        self.is_closed = True
        for workspace in self._open.values():
            workspace.jobs.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
