"""Verbs that run while somebody looks: `otzi VERB …` as processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
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
    begun: float = field(default_factory=time.monotonic, compare=False)
    """In seconds of the monotonic clock."""
    seconds: float | None = field(default=None, compare=False)
    """How long it took; None while it runs."""

    def to_json(self) -> dict[str, Any]:
        """Give the job as plain JSON, ``seconds`` being until now while it runs."""
        seconds = time.monotonic() - self.begun if self.seconds is None else self.seconds
        return {"name": self.name, "state": self.state, "text": self.text, "seconds": seconds}

    def saying(self, text: str) -> Job:
        """Give the job with another line."""
        return replace(self, text=text)

    def ended(self, state: Literal["done", "failed"], text: str = "") -> Job:
        """Give the job as it has ended now."""
        return replace(self, state=state, text=text, seconds=time.monotonic() - self.begun)


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
            self._job = job = Job(name, "running")
        self._thread = Thread(target=self._run, args=(job, commands, done, begin), daemon=True)
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
        job: Job,
        commands: Sequence[Sequence[str]],
        done: Callable[[], None],
        begin: Callable[[], None] | None,
    ) -> None:
        try:
            if begin is not None:
                self._job = job.saying("what is in view")
                begin()
            for words in commands:
                self._job = started = job.saying(f"otzi {words[0]}")
                if (code := self._one(job, words)) != 0:
                    has_said = self._job != started
                    text = self._job.text if has_said else f"{started.text}: exit code {code}"
                    self._job = job.ended("failed", text)
                    return
            done()
        except Exception as error:  # noqa: BLE001 — the page is told, whatever it is
            self._job = job.ended("failed", str(error))
            return
        self._job = job.ended("done")

    def _one(self, job: Job, words: Sequence[str]) -> int:
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
                    self._job = job.saying(line.strip())
        return self._process.returncode
