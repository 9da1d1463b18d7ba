"""Compiled networks: taken where their numbers are the same, left where not."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from otzi.events import Event, Noted, Warned
from otzi.networks.torch_compile import compiled
from otzi_pipelines.train.augment import Change
from otzi_pipelines.train.learner import Learner
from test_architectures import tile, tiny
from test_learner import CPU, SETTINGS, crop, network


def nearly(module: torch.fx.GraphModule, _inputs: Any, *, by: float) -> Any:
    """A compiler that computes nearly the same."""
    return lambda *args: tuple(
        part * by if part.is_floating_point() else part for part in module(*args)
    )


def none_at_all(_module: torch.fx.GraphModule, _inputs: Any) -> Any:
    raise RuntimeError("no compiler here\nand more")


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("training", [True, False])
def test_the_same_numbers_are_taken(training: bool) -> None:
    network, heard = tiny("residual-unet").train(training), list[Event]()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    example = tile(1, 1, 8, 8, 8)
    forward = compiled(network, example, listen=heard.append, backend="eager")
    assert forward is not network
    (event,) = heard
    assert isinstance(event, Noted)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    torch.testing.assert_close(forward(example), network(example))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's own compiler warns of itself
@pytest.mark.parametrize("architecture", ["unet", "residual-unet", "dense-net"])
def test_what_torch_compiles_is_taken(architecture: str) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    network, heard = tiny(architecture).train(), list[Event]()
    example = tile(1, 1, 16, 16, 16)
    forward = compiled(network, example, listen=heard.append)
    assert forward is not network, heard
    torch.testing.assert_close(forward(example), network(example), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("is_mixed", [True, False])
def test_sixteen_bits_are_compared_as_such(is_mixed: bool) -> None:
    network, heard = tiny("residual-unet").train(), list[Event]()
    off = partial(nearly, by=1.01)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
        forward = compiled(network, tile(1, 1, 16, 16, 16), listen=heard.append, backend=off)
    assert (forward is not network) == is_mixed, heard


def test_a_learner_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    by_torch = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, backend: by_torch(module, backend="eager"))

    def learnt(is_compiled: bool) -> tuple[list[float], list[Event]]:
        heard: list[Event] = []
        settings = replace(SETTINGS, compiled=is_compiled)
        learner = Learner(network(), settings, CPU, listen=heard.append)
        return [learner.learn([crop(i)], [Change()], 1e-2) for i in range(3)], heard

    (plain, silent), (same, heard) = learnt(False), learnt(True)
    assert silent == []
    assert [type(event) for event in heard] == [Noted]
    assert same == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (partial(nearly, by=0.5), r"would differ by 5\.0e-01"),
        (none_at_all, "raised: RuntimeError: no compiler here$"),
    ],
)
def test_a_compiler_that_fails_is_left(backend: Any, said: str) -> None:
    network, heard = tiny("unet"), list[Event]()
    assert compiled(network, tile(1, 1, 8, 8, 8), listen=heard.append, backend=backend) is network
    (event,) = heard
    assert isinstance(event, Warned)
    assert re.search(said, event.message)
