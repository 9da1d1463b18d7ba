"""Neuroglancer's server with routes beside it: one process, one port, one origin, loopback.

Each page and each route has a token in its path, the only way to it. All answers carry headers that
keep it from leaking, and a request for any other host than this machine, or from a page of
elsewhere, is refused: a foreign page cannot reach the server by a name of its own that points here.
"""

from __future__ import annotations

import errno
import secrets
import socket
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from otzi.errors import (
    AccessDenied,
    ConfigurationError,
    OtziError,
    TemporaryFailure,
    UsageError,
)
from otzi.events import Listener, Warned, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from otzi_viewers.state import ViewerState

__all__ = ["LOOPBACK", "ViewServer", "view_server"]

LOOPBACK = "127.0.0.1"
_ALL_ADDRESSES = ("", "0.0.0.0", "::")
_TOKEN_BYTES = 20
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0


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
        from otzi_viewers.data_route import DataHandler

        told: set[Path] = set()

        def missing(path: Path) -> None:
            if path not in told:
                told.add(path)
                listen(Warned(f"{path} is missing: make the product again"))

        arguments = {"path": str(folder.resolve()), "missing": missing}
        return self.mount("data", [("(.*)", DataHandler, arguments)])

    def mount(self, area: str, routes: Sequence[tuple[str, type[Any], dict[str, Any]]]) -> str:
        """Give the address, ``…/AREA/TOKEN``, below which handlers answer from now on.

        Each has a pattern of the rest of the path, a tornado handler and what it is made with.
        """
        from neuroglancer import server

        start = f"/{area}/{secrets.token_urlsafe(_TOKEN_BYTES)}"
        rules = [(f"{start}/{pattern}", *handler) for pattern, *handler in routes]
        application = server.global_server.app
        _on_server(lambda: application.add_handlers(".*", rules))
        return self.origin + start

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
def view_server(port: int = 0, host: str = LOOPBACK) -> Iterator[ViewServer]:
    """Run the server while the context lasts; there is one for a process.

    Parameters
    ----------
    port
        0 is any free one.
    host
        Name or address by which browsers reach this machine. On all but the loopback interface
        whoever can listen to the network can read what is shown.

    Raises
    ------
    ConfigurationError
        If Neuroglancer is not installed, or another viewer runs in this process.
    UsageError, AccessDenied, TemporaryFailure
        If the port is none, is not allowed, or is in use.
    """
    try:
        from neuroglancer import server
        from tornado.routing import Rule

        from otzi_viewers.guard import Foreign, Refused, SafeHeaders
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed, the viewer needs it: pip install 'otzi[view]'"
        ) from error
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port}: give 1 to 65535, or 0 for any free one")
    if host in _ALL_ADDRESSES:
        raise UsageError(f"host {host!r}: give the one name or address that others call it by")
    if server.is_server_running():
        raise ConfigurationError("a viewer runs in this process already: close that one first")
    server.set_server_bind_address(host, port)
    try:
        _try_port(host, port)
        server.start()
    except OSError as error:
        raise _port_error(host, port, error) from error
    try:
        application = server.global_server.app

        def guard() -> None:
            application.add_transform(SafeHeaders)
            hosts = {LOOPBACK, "localhost", host.lower()}
            application.default_router.rules.insert(0, Rule(Foreign(hosts), Refused))

        _on_server(guard)
        yield ViewServer(server.get_server_url())
    finally:
        _stop()


def _stop() -> None:
    """End the server: Neuroglancer waits for every connection, which we do for a while only."""
    from neuroglancer import server

    if (running := server.global_server) is None:  # somebody called Neuroglancer's own `stop`
        return
    stopping = Thread(target=server.stop, daemon=True)
    stopping.start()
    stopping.join(_STOP_SECONDS)
    if stopping.is_alive():
        running.loop.call_soon_threadsafe(running.loop.stop)
        stopping.join()


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


def _try_port(host: str, port: int) -> None:
    """Bind once: where Neuroglancer's server cannot, it leaves a socket open."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _port_error(host: str, port: int, error: OSError) -> OtziError:
    if error.errno == errno.EACCES:
        return AccessDenied(f"port {port} is not allowed: choose --port 1024 or above")
    if error.errno == errno.EADDRINUSE:
        return TemporaryFailure(
            f"port {port} is in use: choose another --port, or leave it out for a free one"
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return UsageError(f"host {host!r} is none of this machine's: give its name or address")
    return TemporaryFailure(f"cannot listen on port {port}: {error.strerror}")
