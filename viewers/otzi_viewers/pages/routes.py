"""How the pages, and what they ask for, are answered.

Imports tornado: `website` imports this module when the server runs.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tornado.web import HTTPError, RequestHandler, StaticFileHandler, stream_request_body

from otzi.errors import NotFoundError, OtziError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi_viewers.pages.website import Site

__all__ = ["ActionRoute", "ListRoute", "OpenRoute", "StackedRoute", "StaticRoute", "ThumbnailRoute"]

LARGEST_BODY_BYTES = 1_000_000
"""Of what a page sends: strokes of some ten thousand points."""


class _Route(RequestHandler):
    """What all have in common: the site, its threads, and errors in one line of text."""

    def initialize(self, site: Site) -> None:
        """Take the site."""
        self._site = site

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Do something that takes time while others are answered."""
        try:
            return await asyncio.wrap_future(self._site.threads.submit(work))
        except (asyncio.CancelledError, RuntimeError) as error:
            if self._site.is_closed:  # tornado would never end a connection that is cancelled
                raise HTTPError(503, reason="the viewer has ended") from error
            raise

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say in one line what is wrong."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, OtziError):
            self.set_status(404 if isinstance(error, NotFoundError) else 400)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(str(error) if isinstance(error, OtziError) else self._reason)

    def log_exception(self, kind: Any, value: Any, traceback: Any) -> None:
        """Log what is not said to the page."""
        if not isinstance(value, OtziError):
            super().log_exception(kind, value, traceback)


class ListRoute(_Route):
    """The list of tomograms."""

    async def get(self) -> None:
        """Send the page."""
        self.set_header("Cache-Control", "no-store")
        self.finish(await self._in_thread(self._site.list_page))


class OpenRoute(_Route):
    """The page of a tomogram."""

    async def get(self, id_: str) -> None:
        """Open it, and send the page."""
        wish: dict[str, str] = {
            name: self.get_query_argument(name)
            for name in ("layout", "segmentation", "beside")
            if name in self.request.query_arguments
        }
        self.set_header("Cache-Control", "no-store")
        self.finish(await self._in_thread(lambda: self._site.workspace_page(id_, wish)))


class ThumbnailRoute(_Route):
    """The picture of a tomogram in the list."""

    async def get(self, id_: str) -> None:
        """Send a PNG."""
        picture = await self._in_thread(lambda: self._site.thumbnail(id_, self.request.query))
        self.set_header("Content-Type", "image/png")
        self.set_header("Cache-Control", "max-age=31536000, immutable")
        self.finish(picture)


class StackedRoute(_Route):
    """Files of images that are computed when they are asked for."""

    def head(self, id_: str, product: str, generation: str, path: str) -> None:
        """Refuse: lengths are not known before the chunks are."""
        raise HTTPError(405)

    async def get(self, id_: str, product: str, generation: str, path: str) -> None:
        """Send the file."""
        content = await self._in_thread(
            lambda: self._site.stacked_file(id_, product, generation, path)
        )
        if content is None:
            raise HTTPError(404)
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Cache-Control", "no-cache")
        self.finish(content)


class StaticRoute(StaticFileHandler):
    """Scripts and the style of the pages."""

    def set_extra_headers(self, path: str) -> None:
        """Let the browser ask whether its copy is still good, each time."""
        self.set_header("Cache-Control", "no-cache")


@stream_request_body
class ActionRoute(_Route):
    """What a page wants done: POST of a JSON object to ``TOMOGRAM/ACTION``."""

    def prepare(self) -> None:
        """Refuse what is too much before it is read, and what a form of elsewhere could send."""
        self._body = bytearray()
        if self.request.method != "POST":
            raise HTTPError(405)
        self._check_length(int(self.request.headers.get("Content-Length") or 0))
        if self.request.headers.get("Content-Type") != "application/json":
            raise HTTPError(415, reason="this takes JSON")

    def data_received(self, chunk: bytes) -> None:
        """Keep a part of the body."""
        self._check_length(len(self._body) + len(chunk))
        self._body += chunk

    def _check_length(self, n_bytes: int) -> None:
        if n_bytes > LARGEST_BODY_BYTES:
            raise HTTPError(413, reason=f"more than {LARGEST_BODY_BYTES} bytes")

    async def post(self, id_: str, action: str) -> None:
        """Do it, and send the workspace's status as JSON, or the figure as PNG."""
        try:
            wish = json.loads(self._body)
        except ValueError:
            raise HTTPError(400, reason="no JSON") from None
        if not isinstance(wish, dict):
            raise HTTPError(400, reason="no JSON object")
        answer = await self._in_thread(lambda: self._site.act(id_, action, wish))
        is_picture = isinstance(answer, bytes)
        self.set_header("Content-Type", "image/png" if is_picture else "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(answer if is_picture else json.dumps(answer))
