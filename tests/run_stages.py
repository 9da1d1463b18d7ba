"""Stages that are soon done, fail as they are told, and count; and pipelines of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.events import step
from otzi_pipelines.run.pipeline import Pipeline, RunSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otzi_pipelines.run.stages import Stage, Work
    from otzi_pipelines.run.volume import Volume

__all__ = ["FAST", "Times", "pipeline"]

FAST = {"backoff_seconds": 0.01, "finish_seconds": 0.5}


def pipeline(*stages: Stage, **settings: Any) -> Pipeline:
    return Pipeline(stages, RunSettings(**FAST | settings))


@dataclass(frozen=True)
class Times:
    """``labels/NAME``: another product times a factor."""

    name: str
    of: str = "raw"
    factor: int = 2
    fails: Callable[[str, int], Exception | None] = lambda tomogram, attempt: None
    """What to raise for a tomogram at an attempt, if anything."""
    seconds: float = 0.0
    """In pieces of a hundredth."""
    during: Callable[[str], None] = lambda tomogram: None
    """Called while it runs."""
    ran: Counter[str] = field(default_factory=Counter)
    """How often, by tomogram; finding that there is nothing to do counts, too."""
    lock: Any = field(default_factory=threading.Lock)

    may_use = ()

    @property
    def key(self) -> str:
        return f"times/{self.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.of,)

    @property
    def makes(self) -> str:
        return f"labels/{self.name}"

    def recipe(self, volume: Volume) -> dict[str, Any]:
        return {"factor": self.factor}

    def made_digest(self, volume: Volume) -> str | None:
        return volume.digests.get(self.makes)

    def n_bytes(self, volume: Volume, n_classes: int) -> int:
        return volume.n_voxels

    def run(self, volume: Volume, work: Work) -> bool:
        tomo = volume.tomogram
        with self.lock:
            self.ran[tomo.id] += 1
            attempt = self.ran[tomo.id]
        self.during(tomo.id)
        with step(work.listen, "pieces", round(self.seconds * 100), "pieces") as progress:
            for _ in self._pieces():
                progress.advance()
        if error := self.fails(tomo.id, attempt):
            raise error
        recipe = self.recipe(volume)
        if tomo.is_made(self.makes, recipe, (self.of,)):
            return False
        with tomo.write(self.makes, dtype=np.uint8, recipe=recipe, parents=(self.of,)) as writer:
            writer[tuple(map(slice, writer.shape))] = (tomo.array(self.of)[:] * self.factor).astype(
                np.uint8
            )
        return True

    def _pieces(self) -> Iterator[None]:
        for _ in range(round(self.seconds * 100)):
            time.sleep(0.01)
            yield
