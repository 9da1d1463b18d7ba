"""Norms, and blocks that are computed again: the same gradients, less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from otzi.networks.architectures import build, config_from_json
from otzi.networks.batch_norm import BatchNorm
from otzi.networks.layers import norm
from otzi.networks.volume_norm import VolumeNorm
from test_architectures import TINY, tile


def test_norms_are_what_they_are_called() -> None:
    assert type(norm("batch", 6)) is BatchNorm
    assert type(norm("volume", 6)) is VolumeNorm
    groups = norm("group", 12)
    assert isinstance(groups, nn.GroupNorm)
    assert groups.num_groups == 4
    assert norm("group", 16).num_groups == 8
    assert norm("group", 5).num_groups == 1


@pytest.mark.parametrize("architecture", ["unet", "residual-unet", "dense-net"])
@pytest.mark.parametrize("normalisation", ["batch", "group", "volume"])
def test_checkpointing_changes_nothing_of_the_result(architecture: str, normalisation: str) -> None:
    def learnt(checkpointing: bool) -> dict[str, torch.Tensor]:
        torch.set_num_threads(1)
        fields: dict[str, Any] = {"normalisation": normalisation, "checkpointing": checkpointing}
        network = build(config_from_json(architecture, TINY[architecture] | fields)).train()
        network.initialise(torch.Generator().manual_seed(0))
        for seed in range(2):
            network.zero_grad()
            network(tile(2, 1, 8, 8, 8, seed=seed)).square().mean().backward()
        found = {f"{name} gradient": p.grad for name, p in network.named_parameters()}
        return found | network.state_dict()

    plain, saving = learnt(False), learnt(True)
    assert plain.keys() == saving.keys()
    assert [name for name in plain if not torch.equal(plain[name], saving[name])] == []


class _Kept:
    """Counts what autograd keeps for the way back, each storage once."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor


@pytest.mark.parametrize("architecture", ["unet", "residual-unet", "dense-net"])
def test_checkpointing_keeps_less(architecture: str) -> None:
    def kept_bytes(checkpointing: bool) -> int:
        torch.set_num_threads(1)
        fields = TINY[architecture] | {"checkpointing": checkpointing}
        network = build(config_from_json(architecture, fields)).train()
        network.initialise(torch.Generator().manual_seed(0))
        kept = _Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            outputs = network(tile(1, 1, 16, 16, 16))
        assert outputs.requires_grad
        return sum(kept.sizes.values())

    assert kept_bytes(True) < 0.6 * kept_bytes(False)
