"""Training: it learns, goes on to the same bits, and never overwrites what is something else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from checkpoints import lightning_document, state_dict, write
from labelled import add_labels, shells
from otzi.errors import CannotCreate, ConfigurationError, ModelError, NotFoundError
from otzi.events import Advanced, Event, Noted
from otzi.metrics import Agreement
from otzi.networks.weights import ModelCard, load_card, load_model
from otzi.normalise import MIN_MAX
from otzi.tiles.graph import predict_tiles
from otzi_pipelines.train.checkpoint import Checkpoint
from otzi_pipelines.train.settings import TrainSettings
from otzi_pipelines.train.training import train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Otzi
    from otzi.collection import Collection
    from otzi.tomogram import Tomogram

SHAPE = (24, 60, 32)
SETTINGS = TrainSettings(
    steps=40,
    batch=1,
    crop_voxels=16,
    grid_voxels=8,
    held_out=0.3,
    learning_rate=0.02,
    width=4,
    levels=2,
    validate_every=20,
    checkpoint_every=2,
)
SHORT = replace(SETTINGS, steps=5, validate_every=2)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    density, labels = shells(SHAPE)
    tomo = add_tomogram(density)
    add_labels(tomo, labels)
    return tomo


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model"


def run(
    collection: Collection, model: Path, settings: TrainSettings = SHORT, **options: Any
) -> ModelCard:
    options = {"labels": "net", "device": "cpu", "threads": 1} | options
    return train(collection, model=model, settings=settings, **options)


def files(model: Path) -> dict[str, bytes]:
    """All of a model but its curves, in which the time is."""
    return {
        str(path.relative_to(model)): path.read_bytes()
        for path in model.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }


class Stop:
    """A listener that interrupts after so many steps."""

    def __init__(self, after: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.left, self.error = after, error

    def __call__(self, event: Event) -> None:
        if isinstance(event, Advanced):
            self.left -= 1
            if not self.left:
                raise self.error


def test_the_model_finds_what_it_has_not_seen(tomo: Tomogram, model: Path) -> None:
    card = run(tomo.collection, model, SETTINGS)
    network = load_model(model, device="cpu", threads=1)
    found = predict_tiles(tomo.raw, network, tile=32, overlap=8)[:, :, 42:].values
    truth = tomo.labels("net").values[:, 42:]
    # Whoever says one class everywhere has a macro Dice of at most 1/3.
    assert Agreement.measure(found, truth).macro_dice > 0.8
    assert card.metrics["macro_dice"] > 0.8
    assert card.classes == ("background", "membrane", "lumen")
    assert [entry["step"] for entry in card.metrics["history"]] == [20, 40]
    assert card.metrics["history"][1]["training_loss"] < card.metrics["history"][0]["training_loss"]
    assert card.training["tomograms"][0]["id"] == "ts_001"
    written = {"model.json", "weights.safetensors", "best", "pictures", "tensorboard"}
    assert {path.name for path in model.iterdir()} <= written
    assert load_card(model / "best").metrics["step"] in (20, 40)
    with Image.open(model / "pictures" / "step_000040.png") as picture:
        assert picture.size[0] > 3 * 128


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_ends_in_the_same_bits(
    tomo: Tomogram, tmp_path: Path, after: int, error: type[BaseException]
) -> None:
    whole = run(tomo.collection, tmp_path / "whole")
    broken = tmp_path / "broken"
    with pytest.raises(error):
        run(tomo.collection, broken, listen=Stop(after, error))
    assert not (broken / "model.json").exists()
    events = list[Event]()
    # How often it is saved is no part of the result.
    resumed = run(tomo.collection, broken, replace(SHORT, checkpoint_every=3), listen=events.append)
    assert resumed == whole
    assert (Noted("goes on after step 2") in events) == (after == 3)
    assert sum(isinstance(event, Advanced) for event in events) == (3 if after == 3 else 5)
    assert files(tmp_path / "whole") == files(broken)


def test_a_finished_run_is_not_repeated(tomo: Tomogram, model: Path) -> None:
    card = run(tomo.collection, model)
    stamps = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    events = list[Event]()
    assert run(tomo.collection, model, listen=events.append) == card
    assert events == [Noted(f"{model} is done already")]
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == stamps


def test_a_seed_decides_the_weights(tomo: Tomogram, tmp_path: Path) -> None:
    first = run(tomo.collection, tmp_path / "a")
    assert run(tomo.collection, tmp_path / "b").sha256 == first.sha256
    assert run(tomo.collection, tmp_path / "c", replace(SHORT, seed=1)).sha256 != first.sha256


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_is_for_one_training(tomo: Tomogram, model: Path, finished: bool) -> None:
    if finished:
        run(tomo.collection, model)
    else:
        with pytest.raises(KeyboardInterrupt):
            run(tomo.collection, model, listen=Stop(3))
    for changes, names in [
        ({"width": 8}, "width = 4, now it is 8: choose another --model"),
        ({"learning_rate": 0.01}, "learning_rate = 0.02, now it is 0.01"),
        ({"steps": 6}, "steps = 5, now it is 6"),
    ]:
        with pytest.raises(CannotCreate, match=names):
            run(tomo.collection, model, replace(SHORT, **changes))
    add_labels(tomo, np.minimum(shells(SHAPE)[1], 1))
    with pytest.raises(CannotCreate, match="trained with tomograms = "):
        run(tomo.collection, model)


def test_a_setting_that_is_new_has_had_its_default(tomo: Tomogram, model: Path) -> None:
    card = run(tomo.collection, model)
    document = json.loads((model / "model.json").read_text())
    del document["training"]["settings"]["ema_decay"]
    del document["training"]["judged_by"]
    (model / "model.json").write_text(json.dumps(document))
    assert run(tomo.collection, model).sha256 == card.sha256
    with pytest.raises(CannotCreate, match=r"trained with ema_decay = 0.0, now it is 0.5"):
        run(tomo.collection, model, replace(SHORT, ema_decay=0.5))


def test_a_damaged_checkpoint_is_named(tomo: Tomogram, model: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tomo.collection, model, listen=Stop(3))
    (model / "checkpoint").write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match=r"model/checkpoint is damaged .* remove it"):
        run(tomo.collection, model)
    (model / "checkpoint").unlink()
    run(tomo.collection, model)


def test_what_a_kill_just_before_the_end_leaves_is_no_obstacle(tomo: Tomogram, model: Path) -> None:
    card = run(tomo.collection, model)
    (model / "model.json").rename(model / "model.json.partial")
    assert run(tomo.collection, model) == card


def test_something_else_in_the_folder_is_left_alone(tomo: Tomogram, model: Path) -> None:
    model.mkdir()
    (model / "thesis.tex").write_text("years of work")
    with pytest.raises(CannotCreate, match=r"holds no model, but thesis.tex: choose a new folder"):
        run(tomo.collection, model)
    with pytest.raises(CannotCreate, match="is a file"):
        run(tomo.collection, model / "thesis.tex")
    assert [path.name for path in model.iterdir()] == ["thesis.tex"]


def test_a_model_to_start_from(tomo: Tomogram, tmp_path: Path) -> None:
    origin = run(tomo.collection, tmp_path / "origin")
    still = replace(SHORT, steps=1, learning_rate=1e-12, weight_decay=0, width=None, levels=None)
    start = tmp_path / "origin"
    same = run(tomo.collection, tmp_path / "same", still, start=start)
    soft = np.stack([tomo.labels("net").values == 0, tomo.labels("net").values > 0])
    add_labels(tomo, soft.astype(np.uint8) * 255, "two", ("background", "foreground"))
    other = run(tomo.collection, tmp_path / "other", still, start=start, labels="two")
    assert same.config == origin.config
    assert other.config == origin.config | {"n_classes": 2}
    assert same.training["start"] == other.training["start"] == origin.sha256

    def tensors(name: str) -> dict[str, np.ndarray]:
        network = load_model(tmp_path / name, device="cpu").network
        return {key: p.detach().numpy() for key, p in network.named_parameters()}

    before = tensors("origin")
    for name, tensor in tensors("same").items():
        np.testing.assert_allclose(tensor, before[name], atol=1e-6, err_msg=name)
    for name, tensor in tensors("other").items():
        if not name.startswith("head."):
            np.testing.assert_allclose(tensor, before[name], atol=1e-6, err_msg=name)
    assert tensors("other")["head.weight"].shape[0] == 2
    with pytest.raises(ConfigurationError, match=r"network.width = 8, .* has 4"):
        run(tomo.collection, tmp_path / "no", replace(still, width=8), start=start)


def test_a_published_checkpoint_to_start_from(tomo: Tomogram, tmp_path: Path) -> None:
    """Two classes become three, as published; the file is not touched."""
    file = write(tmp_path / "two.ckpt", lightning_document(state_dict(2, 1)))
    before = file.read_bytes()
    settings = replace(SHORT, steps=2, crop_voxels=32, width=None, levels=None)
    card = run(tomo.collection, tmp_path / "three", settings, start=file)
    assert (card.architecture, card.config["outputs"]) == ("nano-oetzi", 3)
    assert card.normalisation == MIN_MAX
    assert card.training["start"] == hashlib.sha256(before).hexdigest()
    assert file.read_bytes() == before
    network = load_model(tmp_path / "three", device="cpu")
    found = predict_tiles(tomo.raw, network, tile=32, overlap=8)
    np.testing.assert_allclose(found.sum("c").values, 1, atol=1e-3)


def test_it_ends_early_and_the_model_is_the_best_that_was(tomo: Tomogram, model: Path) -> None:
    settings = replace(
        SHORT, steps=40, validate_every=2, stop_validations=3, minimum_gain=9.0, ema_decay=0.5
    )
    events = list[Event]()
    card = run(tomo.collection, model, settings, listen=events.append)
    losses = [entry["held_out_loss"] for entry in card.metrics["history"]]
    assert any(isinstance(e, Noted) and "ended at step 8" in e.message for e in events)
    best = load_card(model / "best")
    assert card == best
    assert card.metrics["held_out_loss"] == min(losses)
    assert (model / "weights.safetensors").read_bytes() == (
        model / "best" / "weights.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("loss", ["bce", "mse", "adaptive-wing"])
def test_two_soft_classes_by_regression(tomo: Tomogram, model: Path, loss: Any) -> None:
    labels = tomo.labels("net").values
    soft = np.stack([labels == 0, labels > 0]).astype(np.uint8) * 255
    add_labels(tomo, soft, "two", ("background", "foreground"))
    settings = replace(SETTINGS, steps=30, validate_every=30, loss=loss)
    card = run(tomo.collection, model, settings, labels="two")
    assert card.metrics["macro_dice"] > 0.8
    network = load_model(model, device="cpu").network
    assert network.config.outputs == 1


def test_a_head_of_other_classes_is_new_even_where_it_would_fit(
    tomo: Tomogram, tmp_path: Path
) -> None:
    run(tomo.collection, tmp_path / "origin")
    labels = tomo.labels("net").values
    soft = np.stack([labels == c for c in range(3)]).astype(np.uint8) * 255
    add_labels(tomo, soft, "renamed", ("background", "spikes", "lumen"))
    still = replace(
        SHORT, seed=1, steps=1, learning_rate=1e-12, weight_decay=0, width=None, levels=None
    )
    for name, labels_name in (("kept", "net"), ("new", "renamed")):
        run(
            tomo.collection,
            tmp_path / name,
            still,
            start=tmp_path / "origin",
            labels=labels_name,
        )
    heads = {
        name: load_model(tmp_path / name, device="cpu").network.state_dict()["head.weight"].numpy()
        for name in ("origin", "kept", "new")
    }
    np.testing.assert_allclose(heads["kept"], heads["origin"], atol=1e-6)
    assert np.abs(heads["new"] - heads["origin"]).max() > 0.1


def test_a_loss_that_is_no_number_ends_it(tomo: Tomogram, model: Path) -> None:
    with pytest.raises(ModelError, match=r"the loss is nan: .*take a learning_rate below 1e\+30"):
        run(tomo.collection, model, replace(SHORT, learning_rate=1e30, checkpoint_every=1))
    assert not (model / "model.json").exists()
    kept = Checkpoint.read(model / "checkpoint")
    assert kept.step >= 1
    assert all(tensor.isfinite().all() for tensor in kept.network.values())


def test_labels_must_be_there(tomo: Tomogram, model: Path) -> None:
    with pytest.raises(NotFoundError, match=r"has labels/forest: make them with `otzi pseudolabel"):
        run(tomo.collection, model, labels="forest")
    with pytest.raises(NotFoundError, match="no model at"):
        run(tomo.collection, model, start=model / "nothing")
    assert not model.exists()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay = nan must be at least 0"),
        ({"learning_rate": 0.0}, r"learning_rate = 0.0 must be above 0"),
        ({"held_out": 1.0}, r"held_out = 1.0 must be between 0 and 1"),
        ({"balance": 1.5}, r"balance = 1.5 must be 0 to 1"),
        ({"class_weights": (0.0, 0.0)}, "class_weights = .* not all 0"),
        ({"ema_decay": 1.0}, "ema_decay = 1.0 must be 0 to below 1"),
        ({"plateau_factor": 1.0}, "plateau_factor = 1.0 must be between 0 and 1"),
        ({"stop_validations": -1}, "stop_validations = -1 must be at least 0"),
        ({"accumulate": 2}, "accumulate = 2 must be at most batch, 1"),
        ({"network": {"width": 4}}, "width is set twice: keep that of the table network"),
        ({"grid_voxels": 17}, "grid_voxels = 17 must be at most crop_voxels, 16"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        replace(SETTINGS, **changes)


TOML = """
steps = 100
batch = 1
crop_voxels = 16
grid_voxels = 8
width = 4
class_weights = [1, 4, 1]

[network]
architecture = "unet"
levels = 2
kernel = [3, 3, 3]
normalisation = "group"

[augmentation]
noise = 0.5
rotation_degrees = 10
"""


def test_the_verb(tomo: Tomogram, tmp_path: Path, otzi: Otzi) -> None:
    config, model = tmp_path / "train.toml", tmp_path / "model"
    config.write_text(TOML)
    words = ("train", tomo.collection.path, "--labels", "net", "--model", model, "--config", config)
    words = (*words, "--steps", 2, "--seed", 3, "--device", "cpu", "--threads", 1)
    first = otzi(*words)
    assert first.code == 0, first.err
    assert first.out.startswith(f"{model}: held-out macro Dice 0.")
    again = otzi(*words, "--json")
    document = json.loads(again.out)
    assert document["classes"] == ["background", "membrane", "lumen"]
    assert document["metrics"]["step"] == 2
    assert "done already" in again.err
    card = load_model(model, device="cpu").card
    assert card.training["settings"]["class_weights"] == [1, 4, 1]
    assert card.training["settings"]["seed"] == 3
    assert (card.architecture, card.config["normalisation"]) == ("unet", "group")
    other = otzi(*words, "--seed", 4)
    assert (other.code, "seed = 3, now it is 4" in other.err) == (73, True)


def test_wrong_words(tomo: Tomogram, tmp_path: Path, otzi: Otzi) -> None:
    config = tmp_path / "train.toml"
    words = ("train", tomo.collection.path, "--labels", "net", "--model", tmp_path / "model")
    for text, code, names in [
        ("stepz = 3", 78, "unknown key 'stepz'; did you mean steps"),
        ("steps = 'many'", 78, "steps = 'many': input should be a valid integer"),
        ("loss = 'dice'", 78, "loss = 'dice': input should be 'cross-entropy', 'bce', 'mse' or"),
        ("[augmentation]\nnoice = 1", 78, "unknown key 'augmentation.noice'; did you mean noise?"),
        ("[augmentation]\nnoise = -1", 78, "augmentation.noise = -1.0 must be 0 to 10"),
        ("[network]\nhead = 'none'", 78, "'cross-entropy' does not go with network.head 'none'"),
        ("[network]\narchitecture = 'vit'", 78, "architecture 'vit': choose one of unet, residual"),
        ("[network]\nwitdh = 4", 78, "network: unknown key 'witdh'; did you mean width?"),
        ("held_out = 2", 78, "held_out = 2.0 must be between 0 and 1"),
        ("steps =", 78, "is not TOML"),
    ]:
        config.write_text(text)
        refused = otzi(*words, "--config", config)
        assert refused.code == code, refused.err
        assert names in refused.err
    assert otzi(*words, "--config", tmp_path / "nothing.toml").code == 2
    assert otzi(*words, "--steps", 0).code == 2
    assert otzi("train", tomo.collection.path).code == 2
