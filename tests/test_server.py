"""The data route and what guards it, as a client on this machine sees them."""

from __future__ import annotations

import asyncio
import socket
import sys
from http.client import HTTPConnection, HTTPResponse
from threading import Event
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from neuroglancer import server as running
from tornado.web import RequestHandler

from otzi.errors import AccessDenied, ConfigurationError, TemporaryFailure, UsageError
from otzi_viewers.server import ViewServer, view_server
from otzi_viewers.state import ViewerState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otzi import events

CONTENT = bytes(range(256)) * 300
STATE = ViewerState("ts", (8, 8, 8), (1.0, 1.0, 1.0), ())


@pytest.fixture(scope="module")
def server() -> Iterator[ViewServer]:
    with view_server() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    served = tmp_path / "served"
    (served / "0" / "c" / "0").mkdir(parents=True)
    (served / "0" / "c" / "0" / "0").write_bytes(CONTENT)
    (served / "zarr.json").write_text("{}")
    (tmp_path / "secret").write_text("secret")
    (served / "link").symlink_to(tmp_path / "secret")
    (served / "outside").symlink_to(tmp_path)
    return served


class Answer:
    """What came back."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()


def ask(url: str, method: str = "GET", **headers: str) -> Answer:
    parts = urlsplit(url)
    connection = HTTPConnection("127.0.0.1", parts.port, timeout=10)
    try:
        connection.request(method, parts.path, headers={"Host": parts.netloc, **headers})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def test_files_come_whole_and_by_ranges(server: ViewServer, folder: Path) -> None:
    url = f"{server.serve(folder)}/0/c/0/0"
    whole = ask(url)
    assert (whole.status, whole.body) == (200, CONTENT)
    head = ask(url, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(CONTENT))
    for asked, expected in {
        "bytes=0-0": CONTENT[:1],
        "bytes=100-70000": CONTENT[100:70001],
        "bytes=-36": CONTENT[-36:],
        "bytes=76790-": CONTENT[76790:],
    }.items():
        part = ask(url, Range=asked)
        assert (part.status, part.body) == (206, expected)
        assert part.headers["Content-Range"].endswith(f"/{len(CONTENT)}")
        assert part.headers["Content-Length"] == str(len(expected))
    assert ask(url, Range=f"bytes={len(CONTENT)}-").status == 416


def test_the_etag_is_of_size_and_time_and_reads_nothing(
    server: ViewServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.serve(folder)}/0/c/0/0"
    monkeypatch.setattr("otzi_viewers.data_route.DataHandler.get_content", None)
    tag = ask(url, "HEAD").headers["ETag"]
    assert ask(url, **{"If-None-Match": tag}).status == 304
    (folder / "0" / "c" / "0" / "0").write_bytes(CONTENT[:-1])
    assert ask(url, "HEAD").headers["ETag"] != tag


def test_a_missing_chunk_is_an_error_and_other_files_are_not_found(
    server: ViewServer, folder: Path
) -> None:
    heard: list[events.Event] = []
    url = server.serve(folder, heard.append)
    for path in ("/absent", "/0/zarr.json", "/0", "", "/0/c/0"):
        assert ask(url + path).status == 404
    assert heard == []
    for method in ("HEAD", "GET"):
        missing = ask(f"{url}/0/c/0/1", method)
        assert missing.status == 500
    assert missing.body == b"0/c/0/1: missing"
    assert len(heard) == 1
    assert "0/c/0/1 is missing: make the product again" in str(heard[0])


@pytest.mark.parametrize(
    "path",
    ["/../secret", "/0/../../secret", "/%2e%2e/secret", "/link", "/outside/secret", "//etc/passwd"],
)
def test_nothing_outside_the_folder_is_sent(server: ViewServer, folder: Path, path: str) -> None:
    answer = ask(server.serve(folder) + path)
    assert answer.status in (403, 404)
    assert b"secret" not in answer.body.replace(b"/secret", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_data_are_for_reading(server: ViewServer, folder: Path, method: str) -> None:
    assert ask(f"{server.serve(folder)}/zarr.json", method).status == 405


def test_tokens_are_the_only_way(server: ViewServer, folder: Path) -> None:
    url = server.serve(folder)
    token = urlsplit(url).path.split("/")[2]
    assert len(token) >= 27
    assert ask(f"{url}/zarr.json").status == 200
    assert ask(f"{url.replace(token, 'x' * len(token))}/zarr.json").status == 404
    assert ask(f"{server.origin}/data/").status == 404
    assert ask(f"{server.origin}/").status == 404
    assert server.serve(folder) != url


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:80", ""])
def test_other_hosts_are_refused_for_data_and_page(
    server: ViewServer, folder: Path, host: str
) -> None:
    page = server.show(STATE).get_viewer_url()
    for url in (f"{server.serve(folder)}/zarr.json", page):
        assert ask(url).status == 200
        assert ask(url, Host=host).status == 403
        assert ask(url, Host=f"localhost:{urlsplit(url).port}").status == 200


def test_no_answer_lets_the_token_leak(server: ViewServer, folder: Path) -> None:
    page = server.show(STATE).get_viewer_url()
    data = f"{server.serve(folder)}/zarr.json"
    for url in (data, page, f"{server.origin}/nothing", f"{server.origin}/otzi/"):
        headers = ask(url).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == ("SAMEORIGIN" if url == page else "DENY")
        policy = headers["Content-Security-Policy"]
        assert "frame-ancestors 'self'" in policy or url != page
        assert "default-src 'none'" in policy or url == page


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_pages_of_elsewhere_are_refused(server: ViewServer, folder: Path, origin: str) -> None:
    page = server.show(STATE).get_viewer_url()
    for url in (f"{server.serve(folder)}/zarr.json", page):
        own = f"http://{urlsplit(url).netloc}"
        assert ask(url, Origin=own).status == 200
        assert ask(url, Origin=origin).status == 403


def test_the_page_gets_no_credentials(server: ViewServer) -> None:
    viewer = server.show(STATE)
    answer = ask(f"{server.origin}/credentials/{viewer.token}", "POST")
    assert answer.status == 403


def test_only_this_machine_is_listened_to(server: ViewServer) -> None:
    assert server.origin.startswith("http://127.0.0.1:")
    port = urlsplit(server.origin).port
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", port))


def test_a_canvas_is_the_panels_alone(server: ViewServer) -> None:
    config = server.show(STATE, (96, 64)).config_state.state
    assert tuple(config.viewer_size) == (96, 64)
    assert not config.show_ui_controls


class TestStarting:
    """Without the server of the module."""

    @pytest.fixture(autouse=True)
    def _stopped(self) -> None:
        running.stop()

    def test_a_port_in_use_is_named(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with (
                pytest.raises(TemporaryFailure, match=f"port {port} is in use: choose another"),
                view_server(port),
            ):
                pass

    def test_a_port_not_allowed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(host: str, port: int) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("otzi_viewers.server._try_port", refuse)
        with pytest.raises(AccessDenied, match="port 80 is not allowed"), view_server(80):
            pass

    def test_it_can_be_started_again_but_not_twice(self) -> None:
        for _ in range(2):
            with view_server() as server:
                assert ask(server.show(STATE).get_viewer_url()).status == 200
                with pytest.raises(ConfigurationError, match="already"), view_server():
                    pass

    def test_a_connection_without_end_does_not_keep_the_server(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("otzi_viewers.server._STOP_SECONDS", 0.2)
        entered = Event()

        class Endless(RequestHandler):
            async def get(self) -> None:
                entered.set()
                await asyncio.Event().wait()

        with socket.socket() as connection:
            with view_server() as server:
                parts = urlsplit(server.mount("endless", [("", Endless, {})]))
                connection.connect(("127.0.0.1", parts.port))
                request = f"GET {parts.path}/ HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
                connection.sendall(request.encode())
                assert entered.wait(60)
                thread = running.global_server._thread
            assert not running.is_server_running()
            assert not thread.is_alive()

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_ports_have_a_range(self, port: int) -> None:
        with pytest.raises(UsageError, match=f"port {port}: give 1 to 65535"), view_server(port):
            pass

    @pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "203.0.113.7"])
    def test_a_host_is_one_name_of_this_machine(self, host: str) -> None:
        with pytest.raises(UsageError, match=f"host '{host}'"), view_server(host=host):
            pass

    def test_another_address_of_this_machine_is_allowed_if_asked_for(self) -> None:
        with view_server(host="127.0.0.3") as server:
            url = server.show(STATE).get_viewer_url()
            assert url.startswith("http://127.0.0.3:")
            parts = urlsplit(url)
            connection = HTTPConnection("127.0.0.3", parts.port, timeout=10)
            for host, status in ((parts.netloc, 200), ("evil.example", 403)):
                connection.request("GET", parts.path, headers={"Host": host})
                answer = Answer(connection.getresponse())
                assert answer.status == status
            connection.close()

    def test_what_is_not_installed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "neuroglancer", None)
        with (
            pytest.raises(ConfigurationError, match=r"neuroglancer.*pip install 'otzi\[view\]'"),
            view_server(),
        ):
            pass
