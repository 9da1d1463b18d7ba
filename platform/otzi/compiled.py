"""Functions that numba compiles on first use: free of the interpreter's lock, kept on disk.

What is kept of a function is renewed when its own file changes, not when a function that it calls
changes in another: after such an edit remove the ``__pycache__`` beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

__all__ = ["compiled", "fused", "inlined", "unsigned"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_FUSED: dict[str, Any] = {**_OPTIONS, "fastmath": {"contract"}}


def compiled(function: F) -> F:
    """Give the same function as machine code, in IEEE arithmetic as written.

    Where no folder can be written to keep it, it is compiled anew in every process.
    """
    return cast("F", _kept(function, _OPTIONS))


def fused(function: F) -> F:
    """Give the same function as machine code, products and sums fused where the machine can.

    Nothing else of the arithmetic is rearranged: NaN and infinity keep their meaning.
    """
    return cast("F", _kept(function, _FUSED))


def inlined(function: F) -> F:
    """Give a function that becomes part of every `fused` one that calls it.

    A loop with a call in it would not vectorise.
    """
    return cast("F", numba.njit(forceinline=True, **_FUSED)(function))


def unsigned(value: int) -> int:
    """Give an integer that compiled code takes for one that is never negative.

    As an index it needs no test for counting from the end, which keeps loops from vectorising.
    Sums of it with others of its kind are so, too.
    """
    return cast("int", np.uint64(value))


def _kept(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
