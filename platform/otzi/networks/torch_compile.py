"""Networks through `torch.compile`, where that gives the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from otzi.events import Listener, Noted, Warned, ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.networks.network import Network

    Forward = Callable[[Tensor], Tensor]

__all__ = ["compiled"]

_MOST_DIFFERENCE = 1e-3
"""Relative to the largest number: float32 sums in another order, through all layers and back."""
_MOST_DIFFERENCE_MIXED = 5e-2
"""The same where products are in 16 bit, as under `torch.autocast`."""


def compiled(
    network: Network, tile: Tensor, *, listen: Listener = ignore, backend: str = "inductor"
) -> Forward:
    """Give `network` compiled, or as it is where that fails or gives other numbers.

    Outputs and, if it is in training, the gradients of all parameters are compared on one tile. The
    network is afterwards as it was before.

    Parameters
    ----------
    network
        Where it is to run.
    tile
        ``(b, c, z, y, x)`` float32, of the shape that is to come.
    listen
        Told if there is nothing to be gained, and why.
    backend
        Of torch.

    Returns
    -------
    Callable
        What `network` itself does, given tiles.
    """
    candidate: Forward = torch.compile(network, backend=backend)
    try:
        expected = _answers(network, network, tile)
        found = _answers(network, candidate, tile)
    except Exception as error:  # noqa: BLE001  (compilers fail in any way they like)
        reason = " ".join(str(error).split("\n")[:2])
        listen(Warned(f"the network is not compiled: {type(error).__name__}: {reason}"))
        return network
    difference = max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
        for a, b in zip(found, expected, strict=True)
    )
    is_mixed = torch.is_autocast_enabled(tile.device.type)
    limit = _MOST_DIFFERENCE_MIXED if is_mixed else _MOST_DIFFERENCE
    if not difference <= limit:
        listen(
            Warned(
                f"the network is not compiled: its numbers would differ by {difference:.1e}, the "
                f"limit is {limit:.0e}"
            )
        )
        return network
    listen(Noted(f"the network is compiled; its numbers differ by {difference:.0e}"))
    return candidate


def _answers(network: Network, forward: Forward, tile: Tensor) -> list[Tensor]:
    """Give the outputs and, in training, the gradients; what the network remembers is restored."""
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    try:
        if not network.training:
            with torch.inference_mode():
                return [forward(tile)]
        outputs = forward(tile)
        parameters = [p for p in network.parameters() if p.requires_grad]
        return [outputs.detach(), *torch.autograd.grad(outputs.square().mean(), parameters)]
    finally:
        with torch.no_grad():
            for name, tensor in network.named_buffers():
                tensor.copy_(before[name])
