"""The crops of each step, read ahead by threads."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from otzi_pipelines.train.crops import Crop, CropSource

__all__ = ["crops_of_steps"]

_STEPS_AHEAD = 2
_THREADS = 4
"""More than a small machine has cores, as some of them wait for the disk."""


def crops_of_steps(
    source: CropSource, indices: Iterable[Sequence[int]]
) -> Generator[list[Crop], None, None]:
    """Yield for each step the crops with its indices; those of the next two are read meanwhile.

    No more than the crops of three steps are in memory at any time.
    """
    ahead: deque[list[Future[Crop]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for of_step in indices:
                ahead.append([pool.submit(source.__getitem__, i) for i in of_step])
                if len(ahead) > _STEPS_AHEAD:
                    yield [crop.result() for crop in ahead.popleft()]
            while ahead:
                yield [crop.result() for crop in ahead.popleft()]
        finally:
            for futures in ahead:
                for future in futures:
                    future.cancel()
