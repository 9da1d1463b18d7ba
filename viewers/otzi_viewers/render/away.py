"""Pictures that others compute, where there are others."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otzi.execute import Executor

__all__ = ["each", "is_away"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_away(executor: Executor | None) -> bool:
    """Tell whether others compute, not this process."""
    return executor is not None and not executor.is_local


def each(
    executor: Executor | None, function: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[tuple[Item, Result]]:
    """Yield each item and its result as they come: see `otzi.execute.Executor.each`.

    Without others one at a time, because a picture takes all the cores of a process.
    """
    if executor is not None and is_away(executor):
        yield from executor.each(function, items)
    else:
        for item in items:
            yield item, function(item)
