"""Work that threads share, told of item by item."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from otzi.events import Listener, ignore, step
from otzi.memory import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["in_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    name: str,
    unit: str,
    listen: Listener = ignore,
    n_threads: int | None = None,
) -> Iterator[Result]:
    """Yield ``function(item)`` of all items, in their order, as threads come to it.

    After an exception, of a thread or of whoever takes the results, no more items are begun.

    Parameters
    ----------
    function
        Called from any thread.
    items
        What there is to do.
    name, unit
        Of the work, and of what is counted, for people.
    listen
        Told of every item once its result is taken.
    n_threads
        All usable cores where left out.
    """
    with (
        step(listen, name, len(items), unit) as work,
        ThreadPoolExecutor(n_threads or usable_cores()) as pool,
    ):
        for result in pool.map(function, items):
            yield result
            work.advance()
