"""A state to go on learning from: one file, written whole or not at all.

It begins with the SHA-256 of the rest, in which torch itself would not notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from otzi.errors import ModelError, disk_errors
from otzi.files import writing_whole

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Checkpoint"]

_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that learning goes on from."""

    step: int
    """Batches learnt from."""
    notes: dict[str, Any]
    """Plain JSON."""
    network: dict[str, Any]
    """State of the network."""
    averaged: dict[str, Any]
    """State of the network of averaged weights; empty if there is none."""
    optimiser: dict[str, Any]
    """State of the optimiser."""
    scaler: dict[str, Any]
    """State of what scales gradients in 16 bit; empty if nothing does."""

    def write(self, path: Path) -> None:
        """Write the file by one atomic rename, synced; its folder is made if need be.

        Raises
        ------
        OutOfSpace, AccessDenied, TemporaryFailure
            If it cannot be written; the one before stays.
        """
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        state["notes"] = json.dumps(self.notes)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        with disk_errors(path, "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing_whole(path) as file:
                file.write(hashlib.sha256(content).digest())
                file.write(content)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Give the checkpoint of a file.

        Raises
        ------
        ModelError
            If the file is damaged.
        """
        with disk_errors(path, "reading"):
            content = path.read_bytes()
        digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if digest != hashlib.sha256(content).digest():
            raise ModelError(
                f"checkpoint {path} is damaged (SHA-256 differs): remove it to begin anew"
            )
        # Tensors and plain values only: nothing in the file is executed.
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return cls(**state | {"notes": json.loads(state["notes"])})
