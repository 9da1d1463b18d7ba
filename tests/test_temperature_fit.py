"""`otzi evaluate --fit-temperature`: a model that is too sure learns by how much, and keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from labelled import add_labels
from otzi.box import Box
from otzi.metrics import Agreement
from otzi.networks.architectures import build, config_from_json
from otzi.networks.weights import ModelCard, load_card, load_model, save_model, write_card
from otzi.split import Split, write_split
from otzi.temperature import tempered
from otzi_pipelines.evaluate.segmentation import comparable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.tomogram import Tomogram

SHAPE = (24, 40, 36)
CLASSES = ("background", "membrane", "lumen")


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = config_from_json("residual-unet", {"n_classes": 3, "width": 2, "levels": 1})
    network = build(config)
    network.initialise(torch.Generator().manual_seed(0))
    save_model(tmp_path / "model", network, ModelCard(CLASSES, asdict(config), None))
    return tmp_path / "model"


def add_probabilities(tomo: Tomogram, card: ModelCard, values: np.ndarray, name: str) -> None:
    """Publish ``probs/NAME`` as if that model had made it."""
    with tomo.write(
        f"probs/{name}",
        dtype=values.dtype,
        channels=CLASSES,
        recipe={"verb": "segment", "model": card.digest},
        parents=["raw"],
    ) as writer:
        da.store(da.from_array(values, chunks=(3, 64, 64, 64)), writer, lock=False)


def too_sure(temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Give probabilities ``(3, z, y, x)``, too sure by that, and a truth drawn of the right."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (3, *SHAPE))
    below = softmax(logits, axis=0).cumsum(axis=0)
    truth = (rng.random(SHAPE) > below).sum(axis=0).clip(0, 2).astype(np.uint8)
    return softmax(logits * temperature, axis=0).astype(np.float32), truth


def test_a_model_learns_its_temperature(tomo: Tomogram, folder: Path, otzi: Otzi) -> None:
    probabilities, truth = too_sure(2.0)
    add_probabilities(tomo, load_card(folder), probabilities, "net")
    add_labels(tomo, truth, "truth")
    weights = (folder / "weights.safetensors").read_bytes()
    picture = folder.parent / "reliability.png"
    words = ("evaluate", tomo.collection.path, "--probs", "net", "--truth", "truth")
    words = (*words, "--fit-temperature", folder)
    run = otzi(*words, "--picture", picture, "--json")
    assert run.code == 0, run.err
    found = json.loads(run.out)["calibration"]
    assert found["temperature"] == pytest.approx(2, rel=0.05)
    right = tempered(probabilities.astype(np.float64), found["temperature"], axis=0)
    for side, values in {"before": probabilities, "after": right}.items():
        expected = Agreement.measure(values, truth)
        assert found[side]["cross_entropy"] == pytest.approx(expected.cross_entropy, rel=1e-3)
        assert found[side]["calibration_error"] == pytest.approx(
            expected.calibration_error, abs=1e-3
        )
    assert found["after"]["calibration_error"] < 0.02 < 0.1 < found["before"]["calibration_error"]
    with Image.open(picture) as image:
        assert image.width > 2 * 480
    card = load_card(folder)
    assert card.temperature == found["temperature"]
    assert card.metrics["calibration"]["tomograms"] == ["ts_001"]
    assert card.metrics["calibration"]["truth"] == "labels/truth"
    assert (folder / "weights.safetensors").read_bytes() == weights
    # Of what is stored the model is no longer the maker: it would be tempered twice.
    run = otzi(*words)
    assert run.code == 2
    assert "not made by" in run.err
    add_probabilities(tomo, card, right.astype(np.float32), "again")
    run = otzi(*words[:2], "--probs", "again", "--truth", "truth", "--fit-temperature", folder)
    assert run.code == 0, run.err
    assert f"temperature {card.temperature:.3f}"[:-1] in run.out
    assert load_card(folder).temperature == pytest.approx(card.temperature, rel=1e-3)


def test_a_model_with_another_temperature_segments_anew(
    tomo: Tomogram, folder: Path, otzi: Otzi
) -> None:
    def made() -> bool:
        words = ("segment", tomo.collection.path, "--model", folder, "--name", "net")
        words = (*words, "--tile", 16, "--overlap", 4, "--dtype", "float32", "--workers", 1)
        run = otzi(*words, "--device", "cpu")
        assert run.code == 0, run.err
        return "already" not in run.err

    assert made()
    assert not made()
    before = tomo.array("probs/net")[...]
    model = load_model(folder, device="cpu", threads=1)
    write_card(folder, replace(load_card(folder), temperature=3.0))
    warmer = load_model(folder, device="cpu", threads=1)
    assert model.__dask_tokenize__() != warmer.__dask_tokenize__()
    assert warmer.network.temperature == 3
    assert made()
    assert tomo.attributes("probs/net")["model"]["temperature"] == 3
    after = tomo.array("probs/net")[...]
    np.testing.assert_allclose(after.sum(0), 1, atol=2e-3)
    assert after.max(axis=0).mean() < before.max(axis=0).mean()


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_stored_probabilities_are_seen_at_a_temperature(tomo: Tomogram, dtype: str) -> None:
    probabilities, truth = too_sure(1.0)
    stored = np.rint(255 * probabilities) if dtype == "uint8" else probabilities.copy()
    stored[:, :2] = 0
    add_labels(tomo, stored.astype(dtype))
    add_labels(tomo, truth, "truth")
    prediction, _ = comparable(tomo, "labels/net", "labels/truth")
    whole = tomo.array("labels/net")
    box = Box.whole(prediction.shape)
    np.testing.assert_array_equal(prediction.read(box), whole[(..., *box.slices)])
    found = replace(prediction, temperature=2.5).read(box)
    assert not found[:, :2].any()
    expected = tempered(probabilities[(..., *box.slices)].astype(np.float64), 2.5, axis=0)
    np.testing.assert_allclose(
        found[:, 2:], expected[:, 2:], atol=0.1 if dtype == "uint8" else 2e-3
    )
    assert found.dtype == np.float32


def test_it_is_fitted_to_what_was_not_learnt(
    add_tomogram: Callable[..., Tomogram], folder: Path, otzi: Otzi
) -> None:
    card = load_card(folder)
    learnt = {"tomograms": [{"id": "ts_001"}, {"id": "ts_002"}], "judged_by": ["ts_002"]}
    card = write_card(folder, replace(card, training=learnt))
    for seed, name in enumerate(("ts_001", "ts_002")):
        tomo = add_tomogram(np.ones(SHAPE, np.int16), name)
        probabilities, truth = too_sure(1.5, seed)
        add_probabilities(tomo, card, probabilities, "net")
        add_labels(tomo, truth, "truth")
    place = tomo.collection.path
    words = ("evaluate", place, "--probs", "net", "--truth", "truth", "--fit-temperature", folder)
    run = otzi(*words, "--part", "val")
    assert run.code == 2
    assert "none of ts_001, ts_002 is in it" in run.err
    write_split(tomo.collection, Split({"ts_001": "train", "ts_002": "val"}))
    run = otzi(*words)
    assert run.code == 0, run.err
    assert "the model learnt from ts_001, of which" in run.err
    write_card(folder, card)
    run = otzi(*words, "--part", "val", "--json")
    assert run.code == 0, run.err
    assert "learnt from" not in run.err
    assert list(json.loads(run.out)["tomograms"]) == ["ts_002"]
    assert load_card(folder).metrics["calibration"]["tomograms"] == ["ts_002"]


def test_only_the_maker_is_calibrated(
    tomo: Tomogram, folder: Path, tmp_path: Path, otzi: Otzi
) -> None:
    probabilities, truth = too_sure(2.0)
    add_labels(tomo, probabilities, "forest")
    add_labels(tomo, truth, "truth")
    words = ("evaluate", tomo.collection.path, "--truth", "truth", "--fit-temperature")
    run = otzi(*words, folder, "--probs", "labels/forest")
    assert run.code == 2
    assert "labels/forest of ts_001 was not made by" in run.err
    run = otzi(*words, tmp_path / "none", "--probs", "labels/forest")
    assert run.code == 2
    assert "no model at" in run.err
    card = load_card(folder)
    add_probabilities(tomo, card, np.roll(probabilities, 1, axis=0), "net")
    add_labels(tomo, probabilities.argmax(axis=0).astype(np.uint8), "wrong")
    run = otzi("evaluate", *words[1:2], "--truth", "wrong", "--probs", "net", *words[-1:], folder)
    assert run.code == 2
    assert "no temperature" in run.err
    assert load_card(folder) == card
