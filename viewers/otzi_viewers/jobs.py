"""Verbs that run while somebody looks: `otzi VERB …` as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Literal

from otzi.errors import Locked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Job", "Jobs"]

_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is or was being done."""

    name: str
    state: Literal["running", "done", "failed"]
    text: str = ""
    """The last line that was said."""

    def to_json(self) -> dict[str, Any]:
        """Give the job as plain JSON."""
        return {"name": self.name, "state": self.state, "text": self.text}


class Jobs:
    """One job after the other; while one runs there is no other."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._process: subprocess.Popen[str] | None = None
        self._thread: Thread | None = None
        self._lock = Lock()
        self._is_closed = False

    @property
    def last(self) -> Job | None:
        """The job that runs, or the last that did; None before the first."""
        return self._job

    def start(
        self,
        name: str,
        commands: Sequence[Sequence[str]],
        done: Callable[[], None],
        begin: Callable[[], None] | None = None,
    ) -> None:
        """Run commands, words after ``otzi``, until one fails; call `done` if none did.

        `begin` is called before the first, in the thread of the job.

        Raises
        ------
        Locked
            If a job runs already.
        """
        with self._lock:
            if self._job is not None and self._job.state == "running":
                raise Locked(f"{self._job.name} runs: wait until it has ended")
            self._job = Job(name, "running")
        self._thread = Thread(target=self._run, args=(name, commands, done, begin), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop what runs."""
        self._is_closed = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(
        self,
        name: str,
        commands: Sequence[Sequence[str]],
        done: Callable[[], None],
        begin: Callable[[], None] | None,
    ) -> None:
        try:
            if begin is not None:
                begin()
            for words in commands:
                if (code := self._one(name, words)) != 0:
                    said = self._job.text if self._job else ""
                    self._job = Job(name, "failed", said or f"exit code {code}")
                    return
            done()
        except Exception as error:  # noqa: BLE001 — the page is told, whatever it is
            self._job = Job(name, "failed", str(error))
            return
        self._job = Job(name, "done")

    def _one(self, name: str, words: Sequence[str]) -> int:
        if self._is_closed:
            return 1
        with subprocess.Popen(
            [sys.executable, "-m", "otzi", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as self._process:
            assert self._process.stderr is not None
            for line in self._process.stderr:
                if line.strip():
                    self._job = Job(name, "running", line.strip())
        return self._process.returncode
