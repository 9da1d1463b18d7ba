"""Compiled functions: the same arithmetic, with or without a folder to keep them in."""

from __future__ import annotations

import numpy as np

from otzi.compiled import compiled, fused, inlined, unsigned


@inlined
def _product(a: float, b: float) -> float:
    return a * b


@fused
def _dot(a: np.ndarray, b: np.ndarray, n: int) -> float:
    total = np.float32(0)
    for i in range(n):
        total += _product(a[i], b[i])
    return total


def test_compiled_code_computes_the_same() -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert _dot(a, b, unsigned(3)) == a @ b


def test_what_cannot_be_kept_is_compiled_all_the_same() -> None:
    from_no_file: dict[str, object] = {}
    exec("def double(x): return 2 * x", from_no_file)
    assert compiled(from_no_file["double"])(21) == 42
