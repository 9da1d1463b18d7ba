"""The forest: what scikit-learn learned, by an own traversal, and kept without pickle."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from otzi.errors import ModelError, NotFoundError, StrokesError, UsageError
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import StrokeForest
from otzi.pseudo.forest_file import load_forest, save_forest
from references import forest_probabilities

if TYPE_CHECKING:
    from pathlib import Path

BANK = FeatureBank(
    scales=(0.7, 1.6), features=("gaussian_smoothing", "structure_tensor_eigenvalues")
)
CLASSES = ("background", "membrane", "spikes", "lumen")
N_CHANNELS = len(BANK.names)


def samples(n: int, seed: int = 0, step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Give overlapping clouds of classes 0, 1 and 3, rounded to multiples of `step`."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, 3], np.uint8), n, p=(0.6, 0.15, 0.25))
    values = rng.normal(size=(n, N_CHANNELS)) + labels[:, None] * rng.uniform(0, 0.8, (n, 1))
    if step:
        values = np.rint(values / step) * step
    return values.astype(np.float32), labels


def fitted(n_trees: int = 20, **options: Any) -> StrokeForest:
    return StrokeForest.fit(*samples(600), bank=BANK, classes=CLASSES, n_trees=n_trees, **options)


@pytest.mark.parametrize("step", [0.0, 0.25])
@pytest.mark.parametrize("n_trees", [1, 30])
def test_probabilities_are_those_of_scikit_learn(n_trees: int, step: float) -> None:
    """With a step, many values lie right on thresholds."""
    values, labels = samples(800, step=step)
    unseen = samples(3001, seed=1, step=step / 2)[0]
    forest = StrokeForest.fit(values, labels, bank=BANK, classes=CLASSES, n_trees=n_trees, seed=4)
    oracle = RandomForestClassifier(n_trees, max_features="sqrt", random_state=4)
    expected = oracle.fit(values, labels).predict_proba(unseen)
    found = forest.predict(np.ascontiguousarray(unseen.T))
    np.testing.assert_allclose(found[[0, 1, 3]].T, expected, rtol=0, atol=1e-5)
    assert (found[2] == 0).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_probabilities_are_those_of_the_plain_walk() -> None:
    forest = fitted()
    unseen = samples(200, seed=2)[0].T
    unseen[3, 5] = np.inf
    unseen[1, 6] = -np.inf
    unseen[:, 7] = np.float32(1e-42)
    found = forest.predict(unseen)
    np.testing.assert_allclose(found, forest_probabilities(forest, unseen), rtol=0, atol=1e-5)


def test_zero_has_no_sign() -> None:
    """The integers that stand for the floats know -0 and 0, the floats do not."""
    forest = fitted(1)
    unseen = samples(50, seed=2)[0].T
    for threshold in (-0.0, 0.0):
        signed = replace(forest, threshold=np.full_like(forest.threshold, threshold))
        for value in (-0.0, 0.0):
            unseen[:] = value
            expected = forest_probabilities(signed, unseen)
            np.testing.assert_allclose(signed.predict(unseen), expected, atol=1e-6)


def test_a_voxel_does_not_depend_on_its_neighbours() -> None:
    forest = fitted()
    unseen = np.ascontiguousarray(samples(700, seed=2)[0].T)
    for early_exit in (None, (5, 0.8)):
        whole = forest.predict(unseen, early_exit)
        for first, last in ((0, 1), (3, 132), (250, 700)):
            part = forest.predict(unseen[:, first:last], early_exit)
            np.testing.assert_array_equal(part, whole[:, first:last])


def test_nan_has_no_class() -> None:
    forest = fitted()
    unseen = samples(300, seed=2)[0].T
    expected = forest.predict(unseen)
    unseen[4, [0, 130, 299]] = np.nan
    expected[:, [0, 130, 299]] = 0
    np.testing.assert_array_equal(forest.predict(unseen), expected)


@pytest.mark.parametrize(("n_first", "votes"), [(1, 1.0), (7, 0.8), (20, 0.9), (40, 0.9)])
def test_early_exit_ends_with_clear_votes_only(n_first: int, votes: float) -> None:
    forest = fitted()
    unseen = samples(500, seed=3)[0].T
    early = forest_probabilities(forest, unseen, n_first)
    exact = forest_probabilities(forest, unseen)
    goes_on = (early.max(axis=0) < votes - 1e-6) | (n_first >= 20)
    found = np.empty((4, 500), np.float32)
    n_continued = forest.predict_into(unseen, found, (n_first, votes))
    np.testing.assert_allclose(found, np.where(goes_on, exact, early), rtol=0, atol=1e-5)
    assert n_continued == goes_on.sum()


def test_training_is_repeatable_and_described() -> None:
    forest = fitted(workers=1)
    assert fitted(workers=2).sha256 == forest.sha256 != fitted(seed=1).sha256
    assert forest.training.n_voxels == tuple(np.bincount(samples(600)[1], minlength=4))
    assert tuple(forest.training.importance) == BANK.names
    assert sum(forest.training.importance.values()) == pytest.approx(1, abs=1e-3)
    assert 0.3 < forest.training.oob_accuracy < 1


def test_out_of_bag_confusion_is_that_of_the_trees_that_have_not_seen_a_voxel() -> None:
    values, labels = samples(600)
    forest = StrokeForest.fit(values, labels, bank=BANK, classes=CLASSES, n_trees=15, seed=2)
    oracle = RandomForestClassifier(15, max_features="sqrt", random_state=2).fit(values, labels)
    expected = np.zeros((4, 4), int)
    for i, label in enumerate(labels):
        votes = [
            tree.predict_proba(values[[i]])[0]
            for tree, seen in zip(oracle.estimators_, oracle.estimators_samples_, strict=True)
            if i not in seen
        ]
        if votes:
            expected[label, oracle.classes_[np.sum(votes, axis=0).argmax()]] += 1
    assert forest.training.oob_confusion == tuple(map(tuple, expected.tolist()))
    assert forest.training.oob_accuracy == pytest.approx(expected.trace() / expected.sum())
    assert not expected[2].any()


def test_where_every_tree_has_seen_every_voxel_nothing_is_out_of_bag() -> None:
    values, labels = samples(600)
    first, other = 0, int((labels != labels[0]).argmax())
    two = np.array([first, other])
    found = [
        StrokeForest.fit(
            values[two], labels[two], bank=BANK, classes=CLASSES, n_trees=1, seed=seed
        ).training
        for seed in range(8)
    ]
    nothing = [t for t in found if t.oob_accuracy is None]
    assert 0 < len(nothing) < 8
    assert all(training.oob_confusion is None for training in nothing)
    assert all(np.sum(t.oob_confusion) == 1 for t in found if t.oob_accuracy is not None)


def test_out_of_bag_accuracy_is_that_of_a_clear_case() -> None:
    values, labels = samples(600)
    values[:, 2] = labels
    forest = StrokeForest.fit(values, labels, bank=BANK, classes=CLASSES, n_trees=40)
    assert forest.training.oob_accuracy > 0.95
    assert max(forest.training.importance, key=forest.training.importance.get) == BANK.names[2]


def test_two_classes_are_needed() -> None:
    values, labels = samples(50)
    with pytest.raises(StrokesError, match=r"at least 2 classes are needed, .*: membrane"):
        StrokeForest.fit(values, np.ones_like(labels), bank=BANK, classes=CLASSES)
    with pytest.raises(StrokesError, match=": none"):
        StrokeForest.fit(values[:0], labels[:0], bank=BANK, classes=CLASSES)
    with pytest.raises(UsageError, match="0 trees"):
        StrokeForest.fit(values, labels, bank=BANK, classes=CLASSES, n_trees=0)


def test_samples_that_are_not_finite_teach_nothing() -> None:
    values, labels = samples(300)
    odd = values.copy()
    odd[::3, 1] = np.nan
    odd[1::3, 0] = np.inf
    rest = StrokeForest.fit(values[2::3], labels[2::3], bank=BANK, classes=CLASSES, n_trees=3)
    found = StrokeForest.fit(odd, labels, bank=BANK, classes=CLASSES, n_trees=3)
    assert found.sha256 == rest.sha256


def test_channels_must_be_those_that_were_learned() -> None:
    with pytest.raises(UsageError, match=f"3 channels, the forest has learned {N_CHANNELS}"):
        fitted(1).predict(np.zeros((3, 10), np.float32))


@pytest.mark.parametrize(("n_trees", "votes"), [(0, 0.9), (5, 0.5), (5, 1.1)])
def test_early_exit_must_make_sense(n_trees: int, votes: float) -> None:
    with pytest.raises(UsageError, match="early exit after"):
        fitted(1).predict(np.zeros((N_CHANNELS, 10), np.float32), (n_trees, votes))


# The file


def test_a_stored_forest_is_the_same(tmp_path: Path) -> None:
    forest = fitted(5)
    save_forest(forest, tmp_path / "a")
    save_forest(forest, tmp_path / "b")
    found = load_forest(tmp_path / "a")
    assert found.sha256 == forest.sha256
    assert (found.bank, found.classes, found.training) == (BANK, CLASSES, forest.training)
    unseen = samples(100, seed=2)[0].T
    np.testing.assert_array_equal(found.predict(unseen), forest.predict(unseen))
    for name in ("forest.json", "forest.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def rewrite(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / "forest.json").read_text())
    (folder / "forest.json").write_text(json.dumps(document | changes))


def test_a_forest_must_be_there_and_whole(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no forest in"):
        load_forest(tmp_path)
    folder = tmp_path / "forest"
    for changes, message in (
        ({"format": 2}, "has format 2, this otzi reads up to 1"),
        ({"channels": ["a"]}, "channels that this otzi does not compute"),
        ({"bank": {"scales": [0.7]}}, "is no forest"),
        ({"training": {}}, "is no forest"),
        ({"classes": ["a", "b", "c"]}, "no forest over these channels"),
        ({"classes": ["a", "b", "c", "d"]}, "is damaged"),
        ({"sha256": "0"}, "is damaged"),
    ):
        save_forest(fitted(3), folder)
        rewrite(folder, **changes)
        with pytest.raises(ModelError, match=message):
            load_forest(folder)
    (folder / "forest.json").write_text("{")
    with pytest.raises(ModelError, match="is no forest"):
        load_forest(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a | {"threshold": a["threshold"].astype("f8")},
        lambda a: a | {"child": a["child"] * 0},
        lambda a: a | {"child": np.minimum(a["child"] + 10**6, 10**6)},
        lambda a: a | {"roots": a["roots"] - 1},
        lambda a: a | {"roots": a["roots"][:0]},
        lambda a: a | {"channel": a["channel"] + np.uint8(200)},
        lambda a: a | {"shares": a["shares"] * 2},
        lambda a: a | {"shares": a["shares"][:-1]},
        lambda a: {"roots": a["roots"]},
        lambda a: a | {"shares": np.array([{}], object)},
    ],
)
def test_arrays_that_are_no_forest_are_refused(tmp_path: Path, damage: Any) -> None:
    """A loop would never end, or memory beyond an array be read."""
    save_forest(fitted(3), tmp_path)
    with np.load(tmp_path / "forest.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(tmp_path / "forest.npz", **damage(arrays))
    with pytest.raises(ModelError):
        load_forest(tmp_path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    save_forest(fitted(3), tmp_path)
    content = (tmp_path / "forest.npz").read_bytes()
    (tmp_path / "forest.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is no forest"):
        load_forest(tmp_path)
