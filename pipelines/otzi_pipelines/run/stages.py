"""What a stage of a pipeline is: what it needs, what decides its output, and how it is run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otzi.events import Listener
    from otzi.execute import Executor
    from otzi_pipelines.run.volume import Volume

__all__ = ["Stage", "Work", "input_digest", "missing"]


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage may use while it runs."""

    executor: Executor | None
    """None for threads of this process."""
    workers: int
    """How many of these, or of the executor's tasks at the same time."""
    priority: int
    """Of several tomograms that of the largest goes first, where the executor heeds it."""
    memory_bytes: int | None
    """For one tomogram at a time; not bounded if None."""
    listen: Listener
    """Told of the progress; raises where the work is to be abandoned."""
    check: Callable[[], None]
    """Raises where the work is to be abandoned: for what has nothing to tell."""


class Stage(Protocol):
    """One step that a tomogram goes through; frozen, read from a table of the pipeline file."""

    @property
    def key(self) -> str:
        """What the ledger knows it by, one of its kind in a pipeline: ``segment/unet``."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The products it is made from; without them it has to wait."""

    @property
    def may_use(self) -> tuple[str, ...]:
        """Products that change the output where they are there."""

    @property
    def makes(self) -> str | None:
        """The product it publishes; None for what is not kept in the collection."""

    def recipe(self, volume: Volume) -> Mapping[str, Any]:
        """Give all else that decides the output, as plain JSON, the version of the rules too."""

    def made_digest(self, volume: Volume) -> str | None:
        """Give the digest of the output there is, whoever made it; None where there is none."""

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        """Give what the output takes at most on the disk."""

    def run(self, volume: Volume, work: Work) -> bool:
        """Make the output; tell whether there was anything to do."""


def input_digest(stage: Stage, volume: Volume) -> str:
    """Give the SHA-256 of all that decides the output of a stage, which must not lack anything."""
    there = volume.digests
    products = {name: there[name] for name in (*stage.needs, *stage.may_use) if name in there}
    inputs = {"stage": stage.key, "recipe": dict(stage.recipe(volume)), "products": products}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def missing(stage: Stage, volume: Volume) -> tuple[str, ...]:
    """Give the products that a stage waits for."""
    return tuple(name for name in stage.needs if name not in volume.digests)
