"""What is refused before any handler sees it, and the headers of every answer.

Imports tornado: `server` imports this module when it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tornado.routing import Matcher
from tornado.web import HTTPError, OutputTransform, RequestHandler

from otzi_viewers.policy import DATA_HEADERS, PAGE_HEADERS, VIEWER_HEADERS

if TYPE_CHECKING:
    from collections.abc import Collection

    from tornado.httputil import HTTPHeaders, HTTPServerRequest

__all__ = ["Foreign", "Refused", "SafeHeaders"]

_HEADERS = {"/v/": VIEWER_HEADERS, "/otzi/": PAGE_HEADERS}
"""By what paths begin with; all others are data."""


class Foreign(Matcher):
    """Requests for another host, and those that another page sends.

    A page of elsewhere can make a browser send requests here, and a name of elsewhere can be made
    to point here; of the token it need not know anything to try.
    """

    def __init__(self, hosts: Collection[str]) -> None:
        self._hosts = hosts

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Give something if the request is to be refused."""
        origin = request.headers.get("Origin")
        is_own_page = origin is None or origin == f"{request.protocol}://{request.host}"
        return None if request.host_name in self._hosts and is_own_page else {}


class Refused(RequestHandler):
    """The answer to foreign requests."""

    def prepare(self) -> None:
        """Refuse."""
        raise HTTPError(403)


class SafeHeaders(OutputTransform):
    """Headers of every answer."""

    def __init__(self, request: HTTPServerRequest) -> None:
        self._headers = next(
            (headers for start, headers in _HEADERS.items() if request.path.startswith(start)),
            DATA_HEADERS,
        )

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Add them."""
        for name, value in self._headers.items():
            headers[name] = value
        return status_code, headers, chunk
