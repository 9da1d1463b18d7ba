"""Notes to people who are not looking: one command or one address, a few seconds, no guarantee."""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Literal

from otzi.errors import UsageError
from otzi.events import Warned
from otzi.ledger.log import utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otzi.events import Listener

__all__ = ["Notifier", "Occasion", "checked_target"]

Occasion = Literal["quarantined", "stalled", "completed", "unavailable"]

_PATIENCE_SECONDS = 10.0


def checked_target(target: str) -> str:
    """Give `target` back if it is an address of http or https, or a command.

    Raises
    ------
    UsageError
        If it is neither.
    """
    scheme = target.partition("://")[0]
    if "://" in target.split(" ")[0] and scheme not in ("http", "https"):
        raise UsageError(f"--notify {target!r}: give an address of http or https, or a command")
    try:
        if shlex.split(target):
            return target
    except ValueError as error:
        raise UsageError(f"--notify {target!r} is no command: {error}") from error
    raise UsageError("--notify is empty: give an address of http or https, or a command")


@dataclass(frozen=True, slots=True)
class Notifier:
    """Whom to tell, and of what.

    The note is a JSON document: ``occasion``, ``collection``, ``folder``, ``time`` and what there
    is to say of that occasion.
    """

    target: str | None
    collection: str
    folder: str

    def __call__(
        self,
        occasion: Occasion,
        listen: Listener,
        items: Sequence[dict[str, Any]] = (),
        **said: Any,
    ) -> None:
        """Tell; if that fails, `listen` hears of it, and the work goes on."""
        if self.target is None:
            return
        note = {
            "occasion": occasion,
            "collection": self.collection,
            "folder": self.folder,
            "time": utc_now(),
            "items": list(items),
        }
        document = json.dumps(note | said).encode()
        send = _post if self.target.startswith(("http://", "https://")) else _run
        try:
            send(self.target, document)
        except (OSError, subprocess.SubprocessError, HTTPException, ValueError) as error:
            listen(Warned(f"nobody was notified ({occasion}): {' '.join(str(error).split())}"))


def _post(address: str, document: bytes) -> None:
    request = urllib.request.Request(
        address, document, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS):
        pass


def _run(command: str, document: bytes) -> None:
    subprocess.run(
        shlex.split(command),
        input=document,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_PATIENCE_SECONDS,
        check=True,
    )
