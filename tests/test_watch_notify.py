"""Notes: JSON to a command or an address; whatever happens to them, the work goes on."""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from otzi.errors import UsageError
from otzi.events import Event, Warned
from otzi_pipelines.watch import notify
from otzi_pipelines.watch.notify import Notifier, checked_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Hook(HTTPServer):
    """Keeps what is posted; answers by the path: /500 with that status, /slow too late."""

    def __init__(self) -> None:
        self.notes: list[dict[str, Any]] = []
        self.types: list[str | None] = []
        super().__init__(("127.0.0.1", 0), _Answer)

    def address(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hook = self.server
        assert isinstance(hook, _Hook)
        if self.path == "/slow":
            time.sleep(1)
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hook.notes.append(json.loads(body))
        hook.types.append(self.headers["Content-Type"])
        self.send_response(500 if self.path == "/500" else 204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def hook() -> Iterator[_Hook]:
    server = _Hook()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _tell(target: str | None, **said: Any) -> list[Event]:
    heard: list[Event] = []
    Notifier(target, "c", "/in")("quarantined", heard.append, [{"source": "ä.mrc"}], **said)
    return heard


def test_a_command_gets_the_note_on_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "a note"
    code = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    assert _tell(f'{sys.executable} -c "{code}" "{out}"', reason="why") == []
    note = json.loads(out.read_bytes())
    time_ = note.pop("time")
    assert time_.endswith("+00:00")
    assert note == {
        "occasion": "quarantined",
        "collection": "c",
        "folder": "/in",
        "items": [{"source": "ä.mrc"}],
        "reason": "why",
    }


def test_an_address_gets_the_note_by_post(hook: _Hook) -> None:
    assert _tell(hook.address("otzi?x=1")) == []
    assert hook.notes[0]["items"] == [{"source": "ä.mrc"}]
    assert hook.types == ["application/json"]


def test_what_fails_is_told_and_stops_nothing(hook: _Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_PATIENCE_SECONDS", 0.2)
    for target, says in (
        (hook.address("500"), "500"),
        (hook.address("slow"), "timed out"),
        ("http://127.0.0.1:1/", "refused"),
        ("http://[/", "nobody was notified"),
        ("false", "exit status 1"),
        ("/nowhere/command", "No such file"),
        ("sleep 5", "timed out"),
    ):
        (event,) = _tell(target)
        assert isinstance(event, Warned)
        assert says in event.message
        assert "\n" not in event.message


def test_nobody_to_tell() -> None:
    assert _tell(None) == []


def test_targets_that_cannot_be_meant() -> None:
    for target in ("https://x/y", "http://x", "mail -s 'a b' me", "curl ftp://x"):
        assert checked_target(target) == target
    for target in ("", "  ", "ftp://x/y", "file:///etc/passwd", "mail 'me"):
        with pytest.raises(UsageError, match="--notify"):
            checked_target(target)
