"""Ensembles: the mean of all members and mirror images, and how far they differ."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from otzi.errors import ModelError, UsageError
from otzi.networks.architectures import build, config_from_json
from otzi.networks.weights import ModelCard, load_model, save_model
from otzi.normalise import MIN_MAX, ROBUST
from otzi.tiles.ensemble import FLIPS, Ensemble, ensemble_of

if TYPE_CHECKING:
    from pathlib import Path

    from otzi.tiles.infer import TorchModel

CLASSES = ("background", "membrane", "lumen")


def make(
    folder: Path, seed: int, classes: tuple[str, ...] = CLASSES, normalisation: str = ROBUST
) -> TorchModel:
    config = config_from_json("residual-unet", {"n_classes": len(classes), "width": 2, "levels": 2})
    network = build(config)
    network.initialise(torch.Generator().manual_seed(seed))
    card = ModelCard(
        classes=classes,
        config=asdict(config),
        spacing_angstrom=None,
        normalisation=normalisation,
    )
    save_model(folder / str(seed), network, card)
    return load_model(folder / str(seed), device="cpu", threads=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[TorchModel]:
    return [make(tmp_path_factory.mktemp("models"), seed) for seed in (1, 2, 3)]


TILE = np.random.default_rng(0).normal(0, 1, (2, 1, 8, 10, 12)).astype(np.float32)


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("n_models", [1, 3])
def test_mean_and_spread_are_those_of_the_definition(
    models: list[TorchModel], n_models: int, flips: int
) -> None:
    found = Ensemble(models[:n_models], flips)(TILE)
    axes = {1: [()], 4: [(), (3,), (4,), (3, 4)]}.get(
        flips, [(), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)]
    )
    images = np.array(
        [
            np.flip(model(np.ascontiguousarray(np.flip(TILE, some))), some)
            for model in models[:n_models]
            for some in axes
        ],
        np.float64,
    )
    mean = images.mean(0)
    np.testing.assert_allclose(found[:, :3], mean, atol=1e-6)
    winner = mean.argmax(1)[None, :, None]
    spread = np.take_along_axis(images, winner, axis=2)[:, :, 0].std(0)
    np.testing.assert_allclose(found[:, 3], spread, atol=1e-5)
    assert found.dtype == np.float32
    assert (spread.max() > 1e-3) == (n_models * flips > 1)


@pytest.mark.parametrize("flips", [4, 8])
def test_a_mirrored_tile_has_the_mirrored_answer(models: list[TorchModel], flips: int) -> None:
    both = Ensemble(models[:1], flips)
    for axes in FLIPS[flips]:
        mirrored = both(np.ascontiguousarray(np.flip(TILE, axes)))
        np.testing.assert_allclose(np.flip(mirrored, axes), both(TILE), atol=1e-5)
    upside_down = both(np.ascontiguousarray(np.flip(TILE, 2)))
    is_same = np.allclose(np.flip(upside_down, 2), both(TILE), atol=1e-5)
    assert is_same == (flips == 8)


def test_one_model_without_images_stays_what_it_is(models: list[TorchModel]) -> None:
    assert ensemble_of(models[:1]) is models[0]
    assert isinstance(ensemble_of(models[:1], 4), Ensemble)
    assert isinstance(ensemble_of(models[:2]), Ensemble)


def test_what_decides_the_mean_is_part_of_its_identity(models: list[TorchModel]) -> None:
    identities = {
        models[0].identity,
        Ensemble(models[:1], 4).identity,
        Ensemble(models[:1], 8).identity,
        Ensemble(models[:2]).identity,
        Ensemble([models[0], models[2]]).identity,
    }
    assert len(identities) == 5
    assert Ensemble(models[:2]).identity == Ensemble(models[:2]).identity


def test_a_copy_elsewhere_gives_the_same(models: list[TorchModel]) -> None:
    whole = Ensemble(models, 4)
    copy = pickle.loads(pickle.dumps(whole))
    np.testing.assert_array_equal(copy(TILE), whole(TILE))
    assert len(pickle.dumps(whole)) < 4000


def test_what_does_not_go_together_is_refused(models: list[TorchModel], tmp_path: Path) -> None:
    other = make(tmp_path, 1, ("background", "spikes", "lumen"))
    with pytest.raises(ModelError, match=r"cannot be averaged, their classes are .*spikes"):
        Ensemble([models[0], other])
    other = make(tmp_path, 2, normalisation=MIN_MAX)
    with pytest.raises(ModelError, match="their normalisation are"):
        Ensemble([models[0], other])
    with pytest.raises(UsageError, match="3 mirror images: choose 1, 4, 8"):
        Ensemble(models, 3)


def test_memory_is_that_of_a_member_and_of_four_times_the_classes(
    models: list[TorchModel],
) -> None:
    tile = (8, 16, 16)
    extra = Ensemble(models, 8).memory_bytes(tile) - models[0].memory_bytes(tile)
    assert extra == (4 * 3 + 1) * 8 * 16 * 16 * 4
