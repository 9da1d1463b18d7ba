"""Eigenvalues of symmetric 3×3 tensors in closed form, written so that it vectorises.

Source: the trigonometric solution of the characteristic equation (Smith 1961, doi
10.1145/355578.366316), entries scaled by the largest; arc cosine by Abramowitz and Stegun 4.4.46
(error 2e-8), sine and cosine by Taylor series: calls to a mathematical library would not vectorise.
"""

from __future__ import annotations

import math

import numpy as np

from otzi.compiled import inlined

__all__ = ["eigenvalues"]

_ONE, _THIRD, _SIXTH = (np.float32(v) for v in (1, 1 / 3, 1 / 6))
_TWO, _PI = np.float32(2), np.float32(math.pi)
_SQRT3 = np.float32(math.sqrt(3))
_TINY = np.float32(1e-30)
"""What is divided by is at least this: zeros give zeros, and no reciprocal overflows."""

_A0, _A1, _A2, _A3 = (
    np.float32(v) for v in (1.5707963050, -0.2145988016, 0.0889789874, -0.0501743046)
)
_A4, _A5, _A6, _A7 = (
    np.float32(v) for v in (0.0308918810, -0.0170881256, 0.0066700901, -0.0012624911)
)
_C2, _C4, _C6, _C8, _C10 = (np.float32((-1) ** k / math.factorial(2 * k)) for k in range(1, 6))
_S3, _S5, _S7, _S9 = (np.float32((-1) ** k / math.factorial(2 * k + 1)) for k in range(1, 5))


@inlined
def eigenvalues(
    zz: np.float32,
    zy: np.float32,
    zx: np.float32,
    yy: np.float32,
    yx: np.float32,
    xx: np.float32,
) -> tuple[np.float32, np.float32, np.float32]:
    """Give the eigenvalues of one tensor, the largest first, in float32.

    Their error is below 1e-3 of the largest magnitude, worst where two of them meet.
    """
    largest = max(max(abs(zz), abs(yy), abs(xx)), max(abs(zy), abs(zx), abs(yx)))
    scale = _ONE / max(largest, _TINY)
    a, b, c = zz * scale, zy * scale, zx * scale
    d, e, f = yy * scale, yx * scale, xx * scale
    mean = (a + d + f) * _THIRD
    a, d, f = a - mean, d - mean, f - mean
    squares = a * a + d * d + f * f + _TWO * (b * b + c * c + e * e)
    spread = math.sqrt(squares * _SIXTH)
    determinant = a * (d * f - e * e) - b * (b * f - e * c) + c * (b * e - d * c)
    ratio = determinant / max(_TWO * spread * spread * spread, _TINY)
    cosine, sine = _of_a_third(max(-_ONE, min(_ONE, ratio)))
    along = spread * cosine
    across = _SQRT3 * spread * sine
    first, middle, last = mean + _TWO * along, mean - along + across, mean - along - across
    # Where two of them meet, rounding could exchange them.
    return max(first, middle) * largest, min(first, middle) * largest, last * largest


@inlined
def _of_a_third(cosine: np.float32) -> tuple[np.float32, np.float32]:
    """Give cosine and sine of a third of the angle, 0 to π, that has this cosine."""
    x = abs(cosine)
    series = _A0 + x * (_A1 + x * (_A2 + x * (_A3 + x * (_A4 + x * (_A5 + x * (_A6 + x * _A7))))))
    acute = math.sqrt(_ONE - x) * series
    angle = (acute if cosine >= 0 else _PI - acute) * _THIRD
    square = angle * angle
    even = _C2 + square * (_C4 + square * (_C6 + square * (_C8 + square * _C10)))
    odd = _S3 + square * (_S5 + square * (_S7 + square * _S9))
    return _ONE + square * even, angle + angle * square * odd
