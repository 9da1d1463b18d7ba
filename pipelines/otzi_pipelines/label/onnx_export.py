"""Verb export-forest: a forest as an ONNX file, for programs that know nothing of otzi.

Source of the format: ONNX operator `TreeEnsembleClassifier` of domain ``ai.onnx.ml``, version 3.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from otzi import __version__
from otzi.arguments import CollectionArgument, TomogramArgument
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import CannotCreate, ConfigurationError, disk_errors
from otzi.files import writing_whole
from otzi.pseudo.forest_file import load_forest
from otzi.store.location import local_folder

if TYPE_CHECKING:
    from otzi.pseudo.forest import StrokeForest

__all__ = ["command", "export_forest_onnx"]

# Old enough for runtimes of some years ago; nothing later is needed.
_OPSET, _ML_OPSET, _IR_VERSION = 17, 3, 8


def export_forest_onnx(forest: StrokeForest, path: str | Path, *, force: bool = False) -> Path:
    """Write a forest as an ONNX file; it is there, whole, or not at all. Give the file.

    Its input ``features`` is ``(voxel, channel)`` float32, its output ``probabilities`` ``(voxel,
    class)`` float32, the same as `StrokeForest.predict` gives: 0 for every class where a channel is
    NaN. Its metadata say, as JSON: ``classes`` and ``channels`` in order, ``bank``, which computes
    the channels, and ``forest_sha256``.

    Parameters
    ----------
    forest
        What is written.
    path
        The file, in a folder that is there.
    force
        Replace a file that is there.

    Raises
    ------
    ConfigurationError
        If onnx is not installed.
    CannotCreate, OutOfSpace, AccessDenied, TemporaryFailure
        If the file cannot be made.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise CannotCreate(f"{path.parent} is no folder: make it first")
    if path.is_dir() or (path.exists() and not force):
        raise CannotCreate(f"{path} is there already: pass --force to replace a file")
    content = _model(forest).SerializeToString(deterministic=True)
    with disk_errors(path, "writing"), writing_whole(path) as file:
        file.write(content)
    return path


def _model(forest: StrokeForest) -> Any:
    """Give the model: the trees, and zeros instead of their result where a channel is NaN."""
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"ONNX files need {error.name}, which is not installed: pip install 'otzi[onnx]'"
        ) from error

    n_channels, n_classes = len(forest.bank.names), len(forest.classes)
    trees = helper.make_node(
        "TreeEnsembleClassifier",
        ["features"],
        ["label", "votes"],
        domain="ai.onnx.ml",
        **_tree_attributes(forest),
    )
    nodes = [
        trees,
        helper.make_node("IsNaN", ["features"], ["is_nan"]),
        helper.make_node("Cast", ["is_nan"], ["nan"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["nan"], ["any_nan"], axes=[1], keepdims=1),
        helper.make_node("Cast", ["any_nan"], ["is_missing"], to=TensorProto.BOOL),
        helper.make_node("Where", ["is_missing", "none", "votes"], ["probabilities"]),
    ]
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "stroke_forest",
        [helper.make_tensor_value_info("features", float32, ["voxel", n_channels])],
        [helper.make_tensor_value_info("probabilities", float32, ["voxel", n_classes])],
        [numpy_helper.from_array(np.zeros(1, np.float32), "none")],
    )
    model = helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid("", _OPSET),
            helper.make_opsetid("ai.onnx.ml", _ML_OPSET),
        ],
        ir_version=_IR_VERSION,
        producer_name="otzi",
        producer_version=__version__,
    )
    said = {
        "classes": forest.classes,
        "channels": forest.bank.names,
        "bank": forest.bank.to_json(),
        "forest_sha256": forest.sha256,
    }
    helper.set_model_props(model, {key: json.dumps(value) for key, value in said.items()})
    checker.check_model(model)
    return model


def _tree_attributes(forest: StrokeForest) -> dict[str, Any]:
    """Give the nodes tree by tree, numbered from each root, and the leaves' shares of the classes.

    A share is divided by the number of trees: the operator adds.
    """
    node = np.arange(len(forest.child))
    tree = np.searchsorted(forest.roots, node, side="right") - 1
    root = forest.roots[tree]
    is_leaf = forest.child == node
    left = np.where(is_leaf, 0, forest.child - root)
    right = np.where(is_leaf, 0, forest.child + 1 - root)
    leaves, n_classes = np.flatnonzero(is_leaf), len(forest.classes)
    shares = forest.shares[leaves] / np.float32(len(forest.roots))
    return {
        "classlabels_strings": list(forest.classes),
        "post_transform": "NONE",
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": (node - root).tolist(),
        "nodes_featureids": forest.channel.tolist(),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values": forest.threshold.tolist(),
        "nodes_truenodeids": left.tolist(),
        "nodes_falsenodeids": right.tolist(),
        "class_treeids": np.repeat(tree[leaves], n_classes).tolist(),
        "class_nodeids": np.repeat((node - root)[leaves], n_classes).tolist(),
        "class_ids": np.tile(np.arange(n_classes), len(leaves)).tolist(),
        "class_weights": shares.ravel().tolist(),
    }


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomogram: TomogramArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="Where to.")],
    *,
    name: Annotated[str, typer.Option(help="Of the labels that the forest has made.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write the forest behind pseudo-labels as an ONNX file."""
    labels = open_collection(collection)[tomogram].path(f"labels/{name}")
    forest = load_forest(local_folder(labels) / "forest")
    path = export_forest_onnx(forest, file, force=force)
    document = {"file": str(path), "classes": forest.classes, "channels": forest.bank.names}
    console.result(document, str(path))
