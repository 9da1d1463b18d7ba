"""Checkpoints in the form that Lightning 1.2.5 gives them, synthesised; and hostile ones."""

from __future__ import annotations

import argparse
import io
import pickle
import sys
import types
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["HPARAMS", "Calls", "lightning_document", "shapes", "state_dict", "write"]

HPARAMS = {"f_maps": 4, "learning_rate": 1e-3, "loss": "ce", "use_amp": True, "gpus": None}


def shapes(width: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Give names and shapes of the 91 tensors, written down from the description of the files."""
    widths = [width * 2**level for level in range(5)]
    found: dict[str, tuple[int, ...]] = {}

    def block(place: str, before: int, channels: int) -> None:
        for i, entering in enumerate((before, channels, channels), 1):
            name = f"model.{place}.basic_module.conv{i}"
            found[f"{name}.groupnorm.weight"] = found[f"{name}.groupnorm.bias"] = (entering,)
            found[f"{name}.conv.weight"] = (channels, entering, 3, 3, 3)

    for i, channels in enumerate(widths):
        block(f"encoders.{i}", widths[i - 1] if i else 1, channels)
    for j in range(4):
        coarse, fine = widths[4 - j], widths[3 - j]
        upsample = f"model.decoders.{j}.upsampling.upsample"
        found[f"{upsample}.weight"] = (coarse, fine, 3, 3, 3)
        found[f"{upsample}.bias"] = (fine,)
        block(f"decoders.{j}", fine, fine)
    found["model.final_conv.weight"] = (outputs, width, 1, 1, 1)
    found["model.final_conv.bias"] = (outputs,)
    return found


def state_dict(width: int = 4, outputs: int = 4, seed: int = 0) -> OrderedDict[str, torch.Tensor]:
    """Give random weights of sensible size."""
    generator = torch.Generator().manual_seed(seed)
    made: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name, shape in shapes(width, outputs).items():
        values = torch.randn(shape, generator=generator)
        if "groupnorm" in name:
            values = values * 0.1 + float(name.endswith("weight"))
        elif len(shape) > 1:
            values = values * (2 / (shape[1] * 27)) ** 0.5
        made[name] = values
    made._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    return made


def lightning_document(
    state: dict[str, torch.Tensor], *, is_namespace: bool = False, **changes: Any
) -> dict[str, Any]:
    """Give what Lightning saves, but for its callbacks, whose class `write` adds."""
    hparams = {"hparams": argparse.Namespace(**HPARAMS)} if is_namespace else dict(HPARAMS)
    moments = {
        i: {"step": 7, "exp_avg": torch.zeros_like(t), "exp_avg_sq": torch.zeros_like(t)}
        for i, t in enumerate(state.values())
    }
    groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-3, "params": list(moments)}]
    return {
        "epoch": 41,
        "global_step": 1234,
        "pytorch-lightning_version": "1.2.5",
        "optimizer_states": [{"state": moments, "param_groups": groups}],
        "lr_schedulers": [{"factor": 0.5, "best": torch.tensor(0.25), "mode": "min"}],
        "state_dict": state,
        "hparams_name": "hparams",
        "hyper_parameters": hparams,
    } | changes


def write(path: Path, document: dict[str, Any], *, is_zip: bool = True) -> Path:
    """Write a file as Lightning does: a class of its own, which is not here, keys its callbacks."""
    with _lightning_class() as callback:
        callbacks = {callback: {"monitor": "val_loss", "best_model_score": torch.tensor(0.1)}}
        torch.save(
            {"callbacks": callbacks, **document}, path, _use_new_zipfile_serialization=is_zip
        )
    return path


@contextmanager
def _lightning_class() -> Iterator[type]:
    """Give a class that pickles as Lightning's, and take its modules away again."""
    names = ["pytorch_lightning", "pytorch_lightning.callbacks"]
    names += ["pytorch_lightning.callbacks.model_checkpoint"]
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    made = type("ModelCheckpoint", (), {"__module__": names[-1]})
    sys.modules[names[-1]].ModelCheckpoint = made  # type: ignore[attr-defined]
    try:
        yield made
    finally:
        for name in names:
            del sys.modules[name]


class Calls:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def pickled(value: Any, protocol: int = 2) -> io.BytesIO:
    """Give a file with one pickle."""
    return io.BytesIO(pickle.dumps(value, protocol))
