"""A real S3 server (moto's) on a free port of this machine, which tells what it was asked.

As a script it serves until it is killed, and prints its address first.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Request", "S3Server", "s3_server"]

BUCKET = "tomograms"
_NO_CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")
_REFUSED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, and how many bytes were sent for it."""

    method: str
    path: str
    is_range: bool
    n_bytes: int


@dataclass
class S3Server:
    """A server that runs."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    refuses: bool = False
    """Whether every request is answered by 403."""
    ignores_conditions: bool = False
    """Whether it writes whatever the condition, as some servers do."""

    @property
    def environment(self) -> dict[str, str]:
        """What a user of it sets."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "otzi",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def asked(self, method: str, part: str = "") -> list[Request]:
        """Give the requests of a method whose path has a part."""
        return [r for r in self.requests if r.method == method and part in r.path]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        sent = {"n_bytes": 0}

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            sent["n_bytes"] = int(dict(headers).get("Content-Length", 0))
            return start_response(status, headers, *rest)

        if self.ignores_conditions:
            for name in _NO_CONDITIONS:
                environ.pop(name, None)
        if self.refuses:
            start("403 Forbidden", [("Content-Length", str(len(_REFUSED)))])
            body: Iterable[bytes] = [_REFUSED]
        else:
            body = self._app(environ, start)
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        is_range = "HTTP_RANGE" in environ
        self.requests.append(Request(method, path, is_range, sent["n_bytes"]))
        return body

    def __post_init__(self) -> None:
        self._app: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args: object) -> None: ...


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Give a running server that has one bucket."""
    server = S3Server()
    listening = make_server("127.0.0.1", 0, server, threaded=True, request_handler=_Quiet)
    listening.daemon_threads = True
    server.url = f"http://127.0.0.1:{listening.port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        _make_bucket(server.url)
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def _make_bucket(url: str) -> None:
    from urllib.request import ProxyHandler, build_opener
    from urllib.request import Request as Put

    build_opener(ProxyHandler({})).open(Put(f"{url}/{BUCKET}", method="PUT")).close()


if __name__ == "__main__":
    with s3_server() as running:
        sys.stdout.write(f"{running.url}\n")
        sys.stdout.flush()
        threading.Event().wait()
