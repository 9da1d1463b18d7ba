"""The stages that write a file by a verb in a process of its own: render, and any other."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otzi.errors import (
    ConfigurationError,
    OtziError,
    TemporaryFailure,
    VerificationError,
    checked_name,
)
from otzi.files import sha256_of_file
from otzi.settings import STRICT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otzi.execute import Executor
    from otzi_pipelines.run.stages import Work
    from otzi_pipelines.run.volume import Volume

__all__ = ["RenderStage", "VerbStage"]

_VERSION = 1
_ID = "{tomogram}"
_LOOK_SECONDS = 0.2
_END_SECONDS = 5.0


@dataclass(frozen=True)
class RenderStage:
    """A picture of every tomogram's classes, or a movie. See `otzi render`."""

    __pydantic_config__ = STRICT

    probs: str
    output: Path
    """The ``.png``, ``.exr`` or ``.mp4`` file, with ``{tomogram}`` for the tomogram's id."""
    name: str = "still"
    """Tells this picture from others of the same tomograms."""
    scene: Path | None = None
    size: str = "1280x960"
    """In pixels."""
    turntable: int | None = None
    """Frames of a whole turn, in a movie."""
    timeout_seconds: float = 3600.0

    makes = None

    def __post_init__(self) -> None:
        checked_name(self.name, "picture name")
        _check_output(self.output)
        if not re.fullmatch(r"\d+x\d+", self.size):
            raise ConfigurationError(f"size = {self.size!r}: write width x height, as 1280x960")
        if self.turntable is not None and self.turntable < 1:
            raise ConfigurationError(f"turntable = {self.turntable}: at least 1 frame")
        if self.turntable is not None and self.output.suffix.lower() != ".mp4":
            raise ConfigurationError(f"turntable makes a movie, {self.output} is none: name a .mp4")

    @property
    def key(self) -> str:
        """What the ledger knows it by."""
        return f"render/{self.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        """What is drawn."""
        return ("raw", f"probs/{self.probs}")

    @property
    def may_use(self) -> tuple[str, ...]:
        """Where the classes begin to be seen."""
        return (f"ramps/{self.probs}",)

    def recipe(self, volume: Volume) -> Mapping[str, Any]:
        """Give the settings, and what the scene file says."""
        scene = None if self.scene is None else sha256_of_file(self.scene)
        settings = {"probs": self.probs, "size": self.size, "scene": scene}
        turntable = {} if self.turntable is None else {"turntable": self.turntable}
        return {"version": _VERSION, **settings, **turntable}

    def output_file(self, volume: Volume) -> Path:
        """Give the file of a tomogram's picture."""
        return _for_tomogram(self.output, volume)

    def made_digest(self, volume: Volume) -> str | None:
        """Give the digest of the picture."""
        return _digest(self.output_file(volume))

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        """Give the size of four bytes a pixel, of each frame."""
        width, _, height = self.size.partition("x")
        return 4 * int(width) * int(height) * (self.turntable or 1)

    def run(self, volume: Volume, work: Work) -> bool:
        """Draw the picture, on the workers of the run's executor."""
        words = ["{collection}", _ID, "--output", "{output}", "--probs", self.probs]
        words += ["--size", self.size, "--slow"]
        if self.scene is not None:
            words += ["--scene", str(self.scene)]
        if self.turntable is not None:
            words += ["--turntable", str(self.turntable)]
        if work.executor is not None:
            words += ["--executor", _address(work.executor)]
        _run("render", words, volume, self.output_file(volume), work, self.timeout_seconds)
        return True


@dataclass(frozen=True)
class VerbStage:
    """A file for every tomogram, made by any verb of otzi."""

    __pydantic_config__ = STRICT

    verb: str
    arguments: tuple[str, ...]
    """In each, ``{collection}``, ``{tomogram}`` and ``{output}`` stand for what they name."""
    needs: tuple[str, ...]
    """The products it reads."""
    output: Path
    """The file, with ``{tomogram}`` for the tomogram's id."""
    name: str | None = None
    """In the ledger; that of the verb if left out."""
    timeout_seconds: float = 3600.0

    may_use = ()
    makes = None

    def __post_init__(self) -> None:
        checked_name(self.verb, "verb")
        _check_output(self.output)
        if not any("{output}" in word for word in self.arguments):
            raise ConfigurationError(f"the arguments of {self.verb} name no {{output}}: add it")

    @property
    def key(self) -> str:
        """What the ledger knows it by."""
        return f"verb/{self.name or self.verb}"

    def recipe(self, volume: Volume) -> Mapping[str, Any]:
        """Give the verb and its words."""
        return {"version": _VERSION, "verb": self.verb, "arguments": list(self.arguments)}

    def output_file(self, volume: Volume) -> Path:
        """Give the file of a tomogram."""
        return _for_tomogram(self.output, volume)

    def made_digest(self, volume: Volume) -> str | None:
        """Give the digest of the file."""
        return _digest(self.output_file(volume))

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        """Give 0: nothing is known of what a verb writes."""
        return 0

    def run(self, volume: Volume, work: Work) -> bool:
        """Have the verb write the file, in place of one that is there."""
        output = self.output_file(volume)
        partial = output.with_name(f"{output.stem}.partial{output.suffix}")
        partial.unlink(missing_ok=True)
        try:
            _run(self.verb, self.arguments, volume, partial, work, self.timeout_seconds)
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
        return True


def _check_output(path: Path) -> None:
    if _ID not in str(path):
        raise ConfigurationError(
            f"output {path} is one file for all tomograms: put {_ID} into its name"
        )


def _address(executor: Executor) -> str:
    from otzi.clusters import DaskExecutor

    assert isinstance(executor, DaskExecutor)
    return executor.address


def _for_tomogram(path: Path, volume: Volume) -> Path:
    return Path(str(path).replace(_ID, volume.id))


def _digest(path: Path) -> str | None:
    try:
        return sha256_of_file(path)
    except FileNotFoundError:
        return None


def _run(
    verb: str,
    arguments: Sequence[str],
    volume: Volume,
    output: Path,
    work: Work,
    timeout_seconds: float,
) -> None:
    """Run a verb to its end, or end it where the work is to be abandoned.

    Raises
    ------
    TemporaryFailure
        If it takes too long, is killed, or ends with the exit code for that.
    OtziError
        If it fails otherwise.
    VerificationError
        If it has not written its file.
    """
    stands_for = {"collection": str(volume.tomogram.collection.path), "tomogram": volume.id}
    words = list(arguments)
    for name, value in (stands_for | {"output": str(output)}).items():
        words = [word.replace(f"{{{name}}}", value) for word in words]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "otzi", verb, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,  # Ctrl-C is for the coordinator, which ends it
        )
        try:
            code = _ended(process, work, time.monotonic() + timeout_seconds)
        finally:
            _end(process)
        said.seek(0)
        last = (said.read().strip().splitlines() or ["it said nothing"])[-1]
    if code is None:
        raise TemporaryFailure(
            f"otzi {verb} of {volume.id} was not done in {timeout_seconds:g} s: raise its timeout"
        )
    if code < 0:
        raise TemporaryFailure(f"otzi {verb} of {volume.id} was killed by signal {-code}")
    if code == TemporaryFailure.exit_code:
        raise TemporaryFailure(f"otzi {verb} of {volume.id}: {last}")
    if code:
        raise OtziError(f"otzi {verb} of {volume.id} ended with {code}: {last}")
    if not output.is_file():
        raise VerificationError(f"otzi {verb} of {volume.id} wrote no {output}")


def _ended(process: subprocess.Popen[bytes], work: Work, until: float) -> int | None:
    while time.monotonic() < until:
        work.check()
        try:
            return process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
