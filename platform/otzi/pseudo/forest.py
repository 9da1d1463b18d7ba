"""A random forest learned from strokes: fitted by scikit-learn, kept as plain arrays.

As ilastik's: 100 trees of unlimited depth, the square root of the channels tried at each split,
and the shares of the classes in the leaves averaged. Unlike ilastik's it is repeatable.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import ModelError, StrokesError, UsageError
from otzi.pseudo.traverse import MOST_CHANNELS, MOST_NODES, count_votes, packed_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.pseudo.bank import FeatureBank

__all__ = ["EarlyExit", "ForestTraining", "StrokeForest", "checked_early_exit"]


EarlyExit = tuple[int, float]
"""Number of trees that every voxel sees, and the mean share of a class with which it sees no more.

Faster, but no longer the exact forest.
"""


def checked_early_exit(early_exit: EarlyExit | None) -> EarlyExit | None:
    """Give it back if it makes sense.

    Raises
    ------
    UsageError
        For less than one tree, or votes outside (0.5, 1].
    """
    if early_exit is not None and not (early_exit[0] >= 1 and 0.5 < early_exit[1] <= 1):
        raise UsageError(
            f"early exit after {early_exit[0]} trees at {early_exit[1]:g} votes: give at least "
            "1 tree, and votes above 0.5 and up to 1"
        )
    return early_exit


@dataclass(frozen=True, slots=True)
class ForestTraining:
    """What a forest was learned from, and how well it knows that."""

    n_voxels: tuple[int, ...]
    """Of each class."""
    samples_sha256: str
    """Identifies channels and classes of these voxels."""
    seed: int
    oob_accuracy: float | None
    """Share of the voxels that those trees get right which have not seen them. Voxels of a stroke
    are alike, so this flatters: it compares forests, and is no accuracy of the labels. None where
    all trees have seen all voxels."""
    importance: dict[str, float]
    """How much each channel parts the classes, summing to 1: the mean decrease in impurity."""
    sklearn_version: str
    oob_confusion: tuple[tuple[int, ...], ...] | None = None
    """Number of voxels of each class (row) that the trees of `oob_accuracy` take for each class
    (column)."""


@dataclass(frozen=True, eq=False)
class StrokeForest:
    """The classes of a voxel from the channels of a feature bank.

    A voxel goes to a node's `child` where its `channel` is at most the `threshold`, and else to the
    node after that; a leaf is its own child.

    Raises
    ------
    ModelError
        If the arrays are no forest over the bank's channels.
    """

    bank: FeatureBank
    """Gives the channels, in its order."""
    classes: tuple[str, ...]
    """Names, in the order of the class table."""
    roots: NDArray[np.int32]
    """``(tree,)`` int32: the first node of each."""
    child: NDArray[np.int32]
    """``(node,)`` int32, after the node itself unless that is a leaf."""
    channel: NDArray[np.uint8]
    """``(node,)`` uint8."""
    threshold: NDArray[np.float32]
    """``(node,)`` float32."""
    shares: NDArray[np.float32]
    """``(node, class)`` float32: of the training voxels at a node, summing to 1."""
    training: ForestTraining

    def __post_init__(self) -> None:
        n_nodes, n_channels = len(self.child), len(self.bank.names)
        if n_channels > MOST_CHANNELS or n_nodes > MOST_NODES:
            raise ModelError(
                f"{n_channels} channels and {n_nodes} nodes, at most {MOST_CHANNELS} and "
                f"{MOST_NODES} fit: take fewer features or trees"
            )
        number = np.arange(n_nodes)
        is_leaf = self.child == number
        is_sound = (
            len(self.roots) > 0
            and np.all((self.roots >= 0) & (self.roots < n_nodes))
            and self.channel.shape == self.threshold.shape == number.shape
            and self.shares.shape == (n_nodes, len(self.classes))
            and np.all(is_leaf | ((self.child > number) & (self.child < n_nodes - 1)))
            and np.all(self.channel < n_channels)
            and np.all(np.isfinite(self.threshold))
            and np.all(self.shares >= 0)
            and np.allclose(self.shares.sum(axis=1), 1, atol=1e-5)
        )
        if not is_sound:
            raise ModelError("the arrays are no forest over these channels: train it again")

    # Learning

    @classmethod
    def fit(
        cls,
        samples: NDArray[np.float32],
        labels: NDArray[np.uint8],
        *,
        bank: FeatureBank,
        classes: Sequence[str],
        n_trees: int = 100,
        seed: int = 0,
        workers: int = 1,
    ) -> StrokeForest:
        """Give the forest of some voxels; the same for the same voxels and seed.

        Parameters
        ----------
        samples
            ``(voxel, channel)`` float32; voxels with a value that is not finite are left out.
        labels
            ``(voxel,)`` uint8: class indices.
        bank
            What gave the samples.
        classes
            All names in order; those without voxels get probability 0.
        n_trees, seed
            Of the forest.
        workers
            Trees at the same time.

        Raises
        ------
        StrokesError
            If fewer than two classes have voxels.
        """
        import sklearn
        from sklearn.ensemble import RandomForestClassifier

        if n_trees < 1:
            raise UsageError(f"{n_trees} trees: give at least 1")
        if not (is_finite := np.isfinite(samples).all(axis=1)).all():
            samples, labels = samples[is_finite], labels[is_finite]
        present = np.unique(labels)
        if len(present) < 2:
            there = ", ".join(classes[i] for i in present) or "none"
            raise StrokesError(
                f"strokes of at least 2 classes are needed, there are those of: {there}"
            )
        found = RandomForestClassifier(
            n_trees, max_features="sqrt", n_jobs=workers, random_state=seed, oob_score=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few trees leave voxels out of no bag
            found.fit(samples, labels)
        confusion = _oob_confusion(found.oob_decision_function_, present, labels, len(classes))
        training = ForestTraining(
            n_voxels=tuple(int(n) for n in np.bincount(labels, minlength=len(classes))),
            samples_sha256=_digest(samples, labels),
            seed=seed,
            oob_accuracy=float(confusion.trace() / confusion.sum()) if confusion.any() else None,
            importance={
                name: round(float(share), 6)
                for name, share in zip(bank.names, found.feature_importances_, strict=True)
            },
            sklearn_version=sklearn.__version__,
            oob_confusion=tuple(map(tuple, confusion.tolist())) if confusion.any() else None,
        )
        arrays = _arrays([tree.tree_ for tree in found.estimators_], present, len(classes))
        return cls(bank, tuple(classes), **arrays, training=training)

    # Using it

    def predict(
        self, features: NDArray[np.float32], early_exit: EarlyExit | None = None
    ) -> NDArray[np.float32]:
        """Give the probabilities of the classes: ``(class, voxel)`` float32, summing to 1.

        A voxel with a NaN among its channels gets 0 for every class, as in ilastik.

        Parameters
        ----------
        features
            ``(channel, voxel)`` float32.
        early_exit
            None for the exact forest.

        Raises
        ------
        UsageError
            For another number of channels, or an early exit that makes no sense.
        """
        probabilities = np.empty((len(self.classes), features.shape[1]), np.float32)
        self.predict_into(features, probabilities, early_exit)
        return probabilities

    def predict_into(
        self,
        features: NDArray[np.float32],
        probabilities: NDArray[np.float32],
        early_exit: EarlyExit | None = None,
    ) -> int:
        """Do as `predict`, into an array, and give the number of voxels that saw all trees."""
        n_channels = len(self.bank.names)
        if len(features) != n_channels:
            raise UsageError(f"{len(features)} channels, the forest has learned {n_channels}")
        early_trees, early_votes = checked_early_exit(early_exit) or (len(self.roots), 1.0)
        return int(
            count_votes(
                np.ascontiguousarray(features, np.float32),
                self._packed,
                self.shares,
                self.roots,
                early_trees,
                early_votes,
                probabilities,
            )
        )

    @cached_property
    def _packed(self) -> NDArray[np.uint64]:
        return packed_nodes(self.child, self.channel, self.threshold)

    @cached_property
    def sha256(self) -> str:
        """What identifies the forest: bank, classes and nodes."""
        said = json.dumps([self.bank.to_json(), self.classes])
        arrays = (self.roots, self.child, self.channel, self.threshold, self.shares)
        return _digest(np.frombuffer(said.encode(), np.uint8), *arrays)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return type(self).__name__, self.sha256


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        little = array.astype(array.dtype.newbyteorder("<"))
        digest.update(repr((little.dtype.str, little.shape)).encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def _oob_confusion(
    decisions: NDArray[np.float64],
    present: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    n_classes: int,
) -> NDArray[np.int64]:
    """Count the voxels that some tree has not seen, by true class (row) and the one decided."""
    is_judged = decisions.sum(axis=1) > 0
    decided = present[decisions.argmax(axis=1)]
    confusion = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(confusion, (labels[is_judged], decided[is_judged]), 1)
    return confusion


def _arrays(
    trees: Sequence[Any], present: NDArray[np.uint8], n_classes: int
) -> dict[str, NDArray[Any]]:
    """Give the nodes of scikit-learn's trees, one tree after the other, siblings side by side."""
    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("child", "channel", "threshold", "shares")
    }
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])
    for root, tree in zip(roots, trees, strict=False):
        order = _by_siblings(tree.children_left, tree.children_right)
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        left = tree.children_left[order]
        is_leaf = left < 0
        shares = np.zeros((len(order), n_classes))
        shares[:, present] = tree.value[order, 0]
        child = np.where(is_leaf, place[order], place[left]) + np.int32(root)
        parts["child"].append(child.astype(np.int32))
        parts["channel"].append(np.where(is_leaf, 0, tree.feature[order]).astype(np.uint8))
        parts["threshold"].append(np.where(is_leaf, 0, _rounded_down(tree.threshold[order])))
        parts["shares"].append((shares / shares.sum(axis=1, keepdims=True)).astype(np.float32))
    arrays = {name: np.concatenate(part) for name, part in parts.items()}
    arrays["threshold"] = arrays["threshold"].astype(np.float32)
    return {"roots": roots[:-1].astype(np.int32), **arrays}


def _by_siblings(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the nodes level by level, so that a right child follows its left sibling."""
    levels = [np.zeros(1, np.int64)]
    while len(levels[-1]):
        parents = levels[-1][left[levels[-1]] >= 0]
        levels.append(np.stack([left[parents], right[parents]], axis=1).ravel())
    return np.concatenate(levels)


def _rounded_down(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the largest float32 up to each: for a float32, ``x <= threshold`` stays the same."""
    nearest = threshold.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > threshold, below, nearest)
