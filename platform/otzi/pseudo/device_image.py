"""Images on a device of torch, filtered pass by pass, mirrored at their ends in every pass."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from otzi.box import Box, Zyx
from otzi.pseudo.presmooth import mirrored

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

__all__ = ["Orders", "PlacedImage", "eigenvalues"]

Orders = tuple[int, int, int]
"""Order of derivative along z, y and x."""

_TINY = 1e-30
"""What is divided by is at least this: zeros give zeros, and no reciprocal overflows."""


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """A part of a volume, and where it lies."""

    values: torch.Tensor
    """``(z, y, x)`` float32."""
    box: Box
    """What `values` hold."""
    ends: Box
    """Where the volume ends: beyond it is mirrored without repeating the end voxel."""

    def filtered(
        self, kernels: Sequence[NDArray[np.float64]], wanted: Collection[Orders], target: Box
    ) -> dict[Orders, torch.Tensor]:
        """Give derivatives of `target`, each ``(z, y, x)`` float32; they share their first passes.

        `kernels` are those of order 0, 1 …, as `gaussian_kernel` gives them. `box` holds `target`
        and their radius around it, up to the ends.
        """
        done: dict[tuple[int, ...], PlacedImage] = {(): self}
        for orders in wanted:
            for axis, order in enumerate(orders):
                before, now = orders[:axis], orders[: axis + 1]
                if now not in done:
                    done[now] = done[before]._along(axis, kernels[order], target, odd=order == 1)
        return {orders: done[orders].values for orders in wanted}

    def smoothed(self, kernel: NDArray[np.float64], target: Box) -> PlacedImage:
        """Give `target`, filtered by one symmetric kernel along all axes."""
        values = self.filtered([kernel], [(0, 0, 0)], target)[0, 0, 0]
        return PlacedImage(values, target, self.ends)

    def _along(
        self, axis: int, kernel: NDArray[np.float64], target: Box, *, odd: bool
    ) -> PlacedImage:
        """Filter along one axis, for the part of `target` there; weighted sums of shifted views."""
        start, stop, radius = target.start[axis], target.stop[axis], len(kernel) - 1
        weights, n = kernel.tolist(), stop - start
        values = self._reaching(axis, start - radius, stop + radius)
        centre = values.narrow(axis, radius, n)
        total = torch.zeros_like(centre) if odd else centre * weights[0]
        for k in range(1, radius + 1):
            one, other = values.narrow(axis, radius + k, n), values.narrow(axis, radius - k, n)
            total.add_(one - other if odd else one + other, alpha=weights[k])
        box = Box(_replaced(self.box.start, axis, start), _replaced(self.box.stop, axis, stop))
        return PlacedImage(total, box, self.ends)

    def _reaching(self, axis: int, start: int, stop: int) -> torch.Tensor:
        """Give the values from `start` to `stop` on an axis, a view if no end is crossed."""
        first, low, high = self.box.start[axis], self.ends.start[axis], self.ends.stop[axis]
        if low <= start and stop <= high:
            return self.values.narrow(axis, start - first, stop - start)
        places = mirrored(start - low, stop - low, high - low).astype(np.int64) + (low - first)
        return self.values.index_select(axis, torch.from_numpy(places).to(self.values.device))


def _replaced(corner: Zyx, axis: int, value: int) -> Zyx:
    z, y, x = (value if i == axis else v for i, v in enumerate(corner))
    return z, y, x


def eigenvalues(entries: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Give the eigenvalues of symmetric 3×3 tensors, the largest first, each like an entry.

    `entries` are zz, zy, zx, yy, yx, xx. The closed form of `otzi.pseudo.eigen`: torch's `eigvalsh`
    does not take NaN.
    """
    largest = functools.reduce(torch.maximum, (entry.abs() for entry in entries))
    scale = 1 / largest.clamp_min(_TINY)
    a, b, c, d, e, f = (entry * scale for entry in entries)
    mean = (a + d + f) / 3
    a, d, f = a - mean, d - mean, f - mean
    spread = ((a * a + d * d + f * f + 2 * (b * b + c * c + e * e)) / 6).sqrt_()
    determinant = a * (d * f - e * e) - b * (b * f - e * c) + c * (b * e - d * c)
    ratio = determinant / (2 * spread**3).clamp_min_(_TINY)
    angle = ratio.clamp_(-1, 1).acos_() / 3
    along, across = spread * angle.cos(), spread * angle.sin() * math.sqrt(3)
    first, middle, last = mean + 2 * along, mean - along + across, mean - along - across
    # Where two of them meet, rounding could exchange them.
    return (
        torch.maximum(first, middle) * largest,
        torch.minimum(first, middle) * largest,
        last * largest,
    )
