"""How files of a collection are sent: ranges, cheap ETags, nothing outside the folder.

Imports tornado: `server` imports this module when it starts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tornado.web import HTTPError, StaticFileHandler

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DataHandler"]

_CHUNK = re.compile(r"/c(/\d+)+$")
"""How the file of a Zarr v3 chunk or shard is named."""


class DataHandler(StaticFileHandler):
    """Files below a folder, by GET and HEAD; all else is 405.

    A missing chunk file is an error of the data (500), never 404: a Zarr reader takes 404 for a
    chunk of zeros, and a damaged volume would look like an empty one.
    """

    def initialize(self, path: str, missing: Callable[[Path], None]) -> None:  # type: ignore[override]
        """Take the folder, and who is told of missing chunks."""
        super().initialize(path)
        self._missing = missing

    def compute_etag(self) -> str | None:
        """Give size and time of the file: tornado's own would hash whole shards."""
        assert self.absolute_path is not None
        stat = Path(self.absolute_path).stat()
        return f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'

    def set_extra_headers(self, path: str) -> None:
        """Let the browser ask whether its copy is still good, each time."""
        self.set_header("Cache-Control", "no-cache")

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Give the path of a file to be sent."""
        path = Path(absolute_path).resolve()
        if not path.is_relative_to(root):
            raise HTTPError(403)
        if path.is_dir():
            raise HTTPError(404)
        if not path.is_file():
            if not _CHUNK.search(path.as_posix()):
                raise HTTPError(404)
            self._missing(path)
            raise HTTPError(500, reason="missing")
        return str(path)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say in a word what is wrong."""
        self.set_header("Content-Type", "text/plain")
        self.finish(f"{self.path_args[0]}: {self._reason}")
