"""Neuroglancer's server with a data route beside it: one process, one port, one origin, loopback.

The page and the data each have a token in their path, the only way to them. All answers carry
headers that keep it from leaking, and a request for any other host than this machine is refused:
a foreign page cannot reach the server by a name of its own that points here.
"""

from __future__ import annotations

import errno
import secrets
import socket
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

from otzi.errors import AccessDenied, ConfigurationError, TemporaryFailure, UsageError
from otzi.events import Listener, Warned, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otzi_viewers.state import ViewerState

__all__ = ["ViewServer", "view_server"]

_ADDRESS = "127.0.0.1"
_FOREIGN_HOST = r"(?!(127\.0\.0\.1|localhost)$).*"
_TOKEN_BYTES = 20
_START_SECONDS = 10.0


class ViewServer:
    """A running server; `view_server` gives one."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        """``http://127.0.0.1:PORT``."""
        self._viewers: list[Any] = []

    def serve(self, folder: Path, listen: Listener = ignore) -> str:
        """Give the address under which the files of a folder can be read from now on.

        Whoever does not know it does not find them. GET and HEAD, with ranges; nothing outside the
        folder, be it by ``..`` or by a link. `listen` is warned of chunks that are asked for and
        missing.
        """
        from neuroglancer import server

        from otzi_viewers.data_route import DataHandler

        told: set[Path] = set()

        def missing(path: Path) -> None:
            if path not in told:
                told.add(path)
                listen(Warned(f"{path} is missing: make the product again"))

        token = secrets.token_urlsafe(_TOKEN_BYTES)
        arguments = {"path": str(folder.resolve()), "missing": missing}
        route = (rf"/data/{token}/(.*)", DataHandler, arguments)
        application = server.global_server.app
        _on_server(lambda: application.add_handlers(".*", [route]))
        return f"{self.origin}/data/{token}"

    def show(self, state: ViewerState, canvas: tuple[int, int] | None = None) -> Any:
        """Give a Neuroglancer viewer that shows a state; `get_viewer_url` is its address.

        With a canvas, width and height in pixels, the page has the panels alone, in that size.
        """
        import neuroglancer

        viewer = neuroglancer.Viewer(allow_credentials=False)
        viewer.set_state(state.to_json())
        if canvas is not None:
            # Before the page opens: 3-D frames of another size would cost their time first.
            with viewer.config_state.txn() as config:
                config.show_ui_controls = False
                config.show_panel_borders = False
                config.viewer_size = canvas
        self._viewers.append(viewer)  # the server itself holds them weakly
        return viewer


@contextmanager
def view_server(port: int = 0) -> Iterator[ViewServer]:
    """Run the server on the loopback interface while the context lasts; port 0 is any free one.

    There is one for a process.

    Raises
    ------
    ConfigurationError
        If Neuroglancer is not installed, or another viewer runs in this process.
    UsageError, AccessDenied, TemporaryFailure
        If the port is none, is not allowed, or is in use.
    """
    try:
        from neuroglancer import server

        from otzi_viewers.data_route import RefusedHost, SafeHeaders
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed, the viewer needs it: pip install 'otzi[view]'"
        ) from error
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port}: give 1 to 65535, or 0 for any free one")
    if server.is_server_running():
        raise ConfigurationError("a viewer runs in this process already: close that one first")
    server.set_server_bind_address(_ADDRESS, port)
    try:
        _try_port(port)
        server.start()
    except OSError as error:
        raise _port_error(port, error) from error
    try:
        application = server.global_server.app

        def guard() -> None:
            application.add_transform(SafeHeaders)
            application.add_handlers(_FOREIGN_HOST, [(".*", RefusedHost)])

        _on_server(guard)
        yield ViewServer(server.get_server_url())
    finally:
        server.stop()


def _on_server(change: Callable[[], object]) -> None:
    """Change the application in its own thread, and wait until it is done."""
    from neuroglancer import server

    done = Event()

    def run() -> None:
        change()
        done.set()

    server.defer_callback(run)
    if not done.wait(_START_SECONDS):
        raise TemporaryFailure(f"the viewer did not start within {_START_SECONDS:g} s: try again")


def _try_port(port: int) -> None:
    """Bind once: where Neuroglancer's server cannot, it leaves a socket open."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((_ADDRESS, port))


def _port_error(port: int, error: OSError) -> TemporaryFailure | AccessDenied:
    if error.errno == errno.EACCES:
        return AccessDenied(f"port {port} is not allowed: choose --port 1024 or above")
    if error.errno == errno.EADDRINUSE:
        return TemporaryFailure(
            f"port {port} is in use: choose another --port, or leave it out for a free one"
        )
    return TemporaryFailure(f"cannot listen on port {port}: {error.strerror}")
