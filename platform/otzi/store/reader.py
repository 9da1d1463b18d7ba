"""One level of a published product as an array that is read lazily and never lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from otzi.errors import CorruptShard, VerificationError
from otzi.store.publish import manifest_digest, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["LevelArray"]


class LevelArray:
    """A level of a product: ``array[region]`` reads; a missing or damaged shard is an error.

    On opening, every shard of the level is looked up and its size compared with the manifest:
    Zarr itself would read a missing one as zeros.
    """

    def __init__(self, generation: Path, level: int) -> None:
        folder = generation / str(level)
        try:
            self.zarr: zarr.Array[Any] = zarr.open_array(folder, mode="r")
        except (FileNotFoundError, ValueError) as error:
            raise VerificationError(
                f"level {level} of {generation} cannot be read: {error}"
            ) from error
        for name, (n_bytes, _) in read_manifest(generation).items():
            if name.startswith(f"{level}/"):
                _check_size(generation / name, n_bytes)
        self.path = folder
        self.shape: tuple[int, ...] = self.zarr.shape
        self.dtype: np.dtype[Any] = self.zarr.dtype
        self.ndim = len(self.shape)
        self.chunk: tuple[int, ...] = self.zarr.chunks
        self._digest = manifest_digest(generation)

    def __getitem__(self, region: Any) -> NDArray[Any]:
        try:
            return np.asarray(self.zarr[region])
        except (ValueError, RuntimeError, OSError) as error:
            if isinstance(error, IndexError):
                raise
            raise CorruptShard(
                f"{self.path} is damaged within {region}: {error}; make the product again"
            ) from error

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return type(self).__name__, self._digest, self.path.name


def _check_size(path: Path, n_bytes: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise CorruptShard(f"{path} is missing: make the product again") from error
    if found != n_bytes:
        raise CorruptShard(f"{path} has {found} bytes, {n_bytes} were written: make it again")
