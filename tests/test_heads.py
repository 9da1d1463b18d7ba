"""Heads: what the last layer's numbers mean, and probabilities that are less sure or surer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from otzi.networks.heads import NormalisedReLU, as_probabilities, n_outputs
from otzi.networks.residual_unet import ResidualSymmetricUNet, ResidualSymmetricUNetConfig

SHAPE = (1, 3, 2, 2, 2)
FLOATS = {"allow_nan": False, "allow_infinity": False, "width": 32}


def network(head: str, n_classes: int) -> ResidualSymmetricUNet:
    config = ResidualSymmetricUNetConfig(n_classes, width=1, levels=1, head=head)
    return ResidualSymmetricUNet(config).eval()


def test_a_regression_of_two_has_one_channel() -> None:
    assert n_outputs(2, "softmax") == 2
    assert [n_outputs(2, head) for head in ("sigmoid", "normalised-relu", "none")] == [1] * 3
    assert n_outputs(4, "none") == n_outputs(4, "softmax") == 4


@pytest.mark.parametrize("n_classes", [2, 3])
def test_heads_do_what_they_are_called(n_classes: int) -> None:
    outputs = torch.tensor([-1.0, 0.0, 0.5, 3.0]).repeat(1, n_classes, 1, 1, 1)
    outputs = outputs * torch.arange(1, n_classes + 1).reshape(1, -1, 1, 1, 1)
    torch.testing.assert_close(
        network("softmax", n_classes).activate(outputs),
        outputs.exp() / outputs.exp().sum(1, keepdim=True),
    )
    torch.testing.assert_close(
        network("sigmoid", n_classes).activate(outputs), 1 / (1 + (-outputs).exp())
    )
    assert torch.equal(network("none", n_classes).activate(outputs), outputs)
    clipped = outputs.clamp(0, 1)
    torch.testing.assert_close(
        network("normalised-relu", n_classes).activate(outputs), clipped
    )  # nothing is remembered yet: the largest is 1


@given(arrays(np.float32, SHAPE, elements=st.floats(-10, 10, **FLOATS)))
def test_probabilities_sum_to_one(shares: np.ndarray) -> None:
    found = as_probabilities(torch.from_numpy(shares)).numpy()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert found.min() >= 0
    clipped = shares.clip(0, 1)
    order = np.argmax(clipped, axis=1)
    picked = np.take_along_axis(found, order[:, None], 1)
    np.testing.assert_array_equal(picked[:, 0], found.max(axis=1))


def test_one_channel_is_the_foreground() -> None:
    shares = torch.tensor([-0.5, 0.25, 2.0]).reshape(1, 1, 1, 1, 3)
    found = as_probabilities(shares).squeeze()
    assert found.tolist() == [[1, 0.75, 0], [0, 0.25, 1]]


def test_where_nothing_is_known_all_classes_are_alike() -> None:
    found = as_probabilities(torch.full((1, 4, 1, 1, 1), -1.0))
    assert (found == 0.25).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_no_number_is_not_hidden(channels: int) -> None:
    shares = torch.zeros(1, channels, 1, 1, 2)
    shares[0, 0, 0, 0, 1] = torch.nan
    found = as_probabilities(shares)
    assert found[..., 0].isfinite().all()
    assert found[..., 1].isnan().any()


def test_a_normalised_relu_remembers_in_full_precision() -> None:
    relu = NormalisedReLU().train()
    found = relu(torch.tensor([1.0, 3.0], dtype=torch.bfloat16).reshape(1, 1, 1, 1, 2))
    assert found.dtype == torch.bfloat16
    assert relu.maximum.dtype == torch.float32
    assert relu.maximum.item() == pytest.approx(1.2)


def test_a_normalised_relu_is_a_share_of_the_largest() -> None:
    relu = NormalisedReLU().train()
    outputs = torch.tensor([[-3.0, 2.0, 4.0], [-2.0, 1.0, 0.5]]).reshape(2, 1, 1, 1, 3)
    found = relu(outputs)
    assert found.squeeze().tolist() == [[0, 0.5, 1], [0, 1, 0.5]]  # each tile by its own
    assert relu.maximum.item() == pytest.approx(0.9 * 1 + 0.1 * 2.5)


def test_a_normalised_relu_does_not_tell_tiles_apart() -> None:
    relu = NormalisedReLU().train()
    for _ in range(200):
        relu(torch.tensor([0.0, 4.0]).reshape(1, 1, 1, 1, 2))
    relu.eval()
    tile = torch.tensor([-1.0, 1.0, 2.0, 8.0]).reshape(1, 1, 1, 1, 4)
    found = relu(tile)
    torch.testing.assert_close(found.squeeze(), torch.tensor([0, 0.25, 0.5, 1]), rtol=0, atol=1e-5)
    assert torch.equal(relu(tile[..., :2]), found[..., :2])


def test_a_tile_without_anything_above_zero_is_zero() -> None:
    relu = NormalisedReLU().train()
    outputs = torch.full((1, 1, 2, 2, 2), -1.0, requires_grad=True)
    found = relu(outputs)
    assert not found.any()
    found.sum().backward()
    assert outputs.grad.isfinite().all()


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "normalised-relu", "none"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_heat_makes_less_sure_and_keeps_the_order(head: str, n_classes: int) -> None:
    torch.set_num_threads(1)
    made = network(head, n_classes)
    made.initialise(torch.Generator().manual_seed(0))
    tile = torch.randn(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Regressions are between 0 and 1: what is certain stays so.
        made.head.weight.mul_(0.2)
        made.head.bias.fill_(0.4)
    with torch.inference_mode():
        before = made.probabilities(tile)
        made.temperature = 2.0
        after = made.probabilities(tile)
    torch.testing.assert_close(after.sum(1), torch.ones(1, 4, 4, 4))
    assert torch.equal(after.argmax(1), before.argmax(1))
    assert (after.amax(1) <= before.amax(1) + 1e-6).all()
    assert after.amax(1).mean() < before.amax(1).mean()
