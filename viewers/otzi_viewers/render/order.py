"""In which order bricks are drawn, for several pictures at once.  Pure.

Along a ray the distance to the eye never shrinks on any axis. So a picture may take a brick once it
has taken, on each axis, the neighbour on the eye's side: what can hide a brick comes before it.
Pictures from different places agree on most of that, and share the bricks that they agree on.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from otzi.box import Zyx

__all__ = ["EyePlace", "brick_order"]

EyePlace = tuple[int | None, int | None, int | None]
"""In which brick the eye is, on each axis: -1 before the first, their number beyond the last; None
where rays never leave a brick on that axis."""


def brick_order(
    visible: NDArray[np.bool_], eyes: Sequence[EyePlace]
) -> Iterator[tuple[Zyx, list[int]]]:
    """Yield bricks, and which of the pictures take them there.

    Every picture takes every visible brick exactly once, and none before one that may hide it.
    The brick that most pictures wait for is next: where all agree, each is there once.

    Parameters
    ----------
    visible
        ``(z, y, x)``: which bricks there are; the others are never drawn.
    eyes
        Of the pictures.
    """
    nearest_first = [_nearest_first(n, at) for n, at in zip(visible.shape, eyes[0], strict=True)]
    sequence: list[Zyx] = list(product(nearest_first[0], nearest_first[1], nearest_first[2]))
    place = {brick: n for n, brick in enumerate(sequence)}
    waiting = np.zeros(len(sequence), np.int64)
    queues = [_Queue(visible, eye) for eye in eyes]

    def add(bricks: list[Zyx]) -> None:
        for brick in bricks:
            waiting[place[brick]] += 1

    for queue in queues:
        add(queue.begin())
    while waiting.any():
        brick = sequence[int(waiting.argmax())]
        takers = [n for n, queue in enumerate(queues) if queue.is_ready(brick)]
        yield brick, takers
        waiting[place[brick]] = 0
        for n in takers:
            add(queues[n].take(brick))


class _Queue:
    """Which bricks one picture may take."""

    def __init__(self, visible: NDArray[np.bool_], eye: EyePlace) -> None:
        self._visible, self._eye = visible, eye
        sides = [
            np.array(
                [
                    0 if at is None or i == at else int(0 <= i - np.sign(i - at) < n)
                    for i in range(n)
                ]
            )
            for n, at in zip(visible.shape, eye, strict=True)
        ]
        self._missing = sides[0][:, None, None] + sides[1][:, None] + sides[2]

    def begin(self) -> list[Zyx]:
        """Give the bricks that may be taken first."""
        free = [(int(z), int(y), int(x)) for z, y, x in np.argwhere(self._missing == 0)]
        return self._reached(free)

    def is_ready(self, brick: Zyx) -> bool:
        """Tell whether a brick may be taken now."""
        return bool(self._missing[brick] == 0)

    def take(self, brick: Zyx) -> list[Zyx]:
        """Give the bricks that may be taken once this one is."""
        self._missing[brick] = -1
        return self._reached(self._freed(brick))

    def _reached(self, free: list[Zyx]) -> list[Zyx]:
        """Go through bricks that are not there to those that are."""
        found = []
        while free:
            brick = free.pop()
            if self._visible[brick]:
                found.append(brick)
            else:
                self._missing[brick] = -1
                free += self._freed(brick)
        return found

    def _freed(self, brick: Zyx) -> list[Zyx]:
        freed = []
        for axis, at in enumerate(self._eye):
            if at is None:
                continue
            index = brick[axis]
            for step in (-1, 1):
                after = index + step
                is_away = (after - index) * (index - at) >= 0
                if is_away and 0 <= after < self._visible.shape[axis]:
                    other = _moved(brick, axis, after)
                    self._missing[other] -= 1
                    if self._missing[other] == 0:
                        freed.append(other)
        return freed


def _moved(brick: Zyx, axis: int, index: int) -> Zyx:
    z, y, x = (index if n == axis else old for n, old in enumerate(brick))
    return z, y, x


def _nearest_first(count: int, at: int | None) -> list[int]:
    return sorted(range(count), key=lambda index: abs(index - (at or 0)))
