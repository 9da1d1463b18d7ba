"""One MRC file into one ``raw`` product: slab by slab, statistics and digest in the same read."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from math import sqrt
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from otzi.box import Box, tile
from otzi.errors import MemoryBudgetError, disk_errors
from otzi.events import Listener, step
from otzi.memory import format_bytes
from otzi.mrc import read_window, slabs
from otzi.store.moments import Moments
from otzi.store.presets import Quantisation, quantisation_for, stored_dtype
from otzi_pipelines.sources import Source, sha256_of, source_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from otzi.events import Step
    from otzi.store.product import ProductWriter
    from otzi.tomogram import Tomogram

__all__ = ["convert", "slab_planes"]

T = TypeVar("T")

CHUNK_VOXELS = 64
_SHARD_VOXELS = 256
_PROCESS_BYTES = 200 * 10**6  # interpreter and libraries
_THREAD_BYTES = 40 * 10**6  # a strip on its way: float64 pieces, encoded chunks


def slab_planes(source: Source, memory_bytes: int | None, threads: int) -> int:
    """Give how many planes are read at a time: whole chunks, as many as the memory holds.

    Raises
    ------
    MemoryBudgetError
        If not even one layer of chunks fits.
    """
    _, n_y, n_x = source.header.shape
    itemsize = source.header.dtype.itemsize
    layer = CHUNK_VOXELS * n_y * n_x * itemsize
    shard = min(_SHARD_VOXELS, n_y) * min(_SHARD_VOXELS, n_x) * _SHARD_VOXELS * itemsize
    fixed = _PROCESS_BYTES + threads * (shard + _THREAD_BYTES)
    if not source.header.is_z_slowest:
        fixed += source.header.data_bytes // source.header.stored_shape[0]
    if memory_bytes is None:
        return CHUNK_VOXELS
    if fixed + layer > memory_bytes:
        raise MemoryBudgetError(
            f"{source.path}: {CHUNK_VOXELS} planes of {n_y} × {n_x} voxels need "
            f"{format_bytes(fixed + layer)}, it may use {format_bytes(memory_bytes)}: raise "
            "--memory or lower --workers"
        )
    layers = (memory_bytes - fixed) // layer
    return CHUNK_VOXELS * min(layers, _SHARD_VOXELS // CHUNK_VOXELS)


def convert(
    source: Source,
    tomo: Tomogram,
    recipe: Mapping[str, Any],
    *,
    depth: int,
    threads: int,
    listen: Listener,
) -> None:
    """Publish a source as the ``raw`` of a tomogram, by the preset that the recipe names.

    ``exact`` reads the file once; the others once more, before, to know how to quantise. What is
    measured does not depend on `depth` and `threads`.

    Raises
    ------
    SourceError
        If the source cannot be read to its end, holds nothing finite, or not what its preset needs.
    """
    header, preset = source.header, str(recipe["preset"])
    with source_errors():
        nothing = Moments.none(header.dtype, _reference(source))
    n_passes = 1 if preset == "exact" else 2
    n_slabs = -(-header.shape[0] // depth)
    with (
        step(listen, f"ingest {tomo.id}", n_slabs * n_passes, "slabs") as work,
        ThreadPoolExecutor(threads) as pool,
    ):
        sweep = _Sweep(source, depth, pool, work)
        measured = quantisation = None
        if n_passes == 2:
            measured = reduce(Moments.merge, sweep(lambda _, block: nothing.add(block)), nothing)
            quantisation = quantisation_for(preset, measured)
        with tomo.write(
            "raw",
            dtype=stored_dtype(preset, header.dtype),
            shape=header.shape,
            spacing_angstrom=source.spacing_angstrom,
            recipe=recipe,
            chunk_voxels=CHUNK_VOXELS,
            inputs={"source": _identity(source)},
        ) as writer:
            if measured is None or quantisation is None:

                def store(box: Box, block: NDArray[Any]) -> Moments:
                    writer[box.slices] = block
                    return nothing.add(block)

                measured = reduce(Moments.merge, sweep(store), nothing)
            else:
                error = _write_quantised(writer, sweep, quantisation, measured)
                if not quantisation.is_identity:
                    writer.attributes["quantisation"] = error
            statistics = measured.to_json()
            writer.attributes["statistics"] = statistics
            writer.attributes["source"] = _provenance(source, sweep.sha256)
            writer.image = replace(writer.image, window=_window(statistics, quantisation))


class _Sweep:
    """A read of the whole source: ``sweep(visit)`` yields what `visit` gives for each strip.

    Strips are 64 planes of 64 rows, in the order of z and y, whatever the depth of the slabs.
    """

    def __init__(self, source: Source, depth: int, pool: ThreadPoolExecutor, work: Step) -> None:
        self.source, self.depth, self.pool, self.work = source, depth, pool, work
        self._sha256: str | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, taken while it was read if its order allowed it."""
        return self._sha256 or sha256_of(self.source.path)

    def __call__(self, visit: Callable[[Box, NDArray[Any]], T]) -> Iterator[T]:
        header, digest = self.source.header, hashlib.sha256()
        reading = slabs(self.source.path, header, self.depth, seen=digest.update)
        strip = (CHUNK_VOXELS, CHUNK_VOXELS, header.shape[2])
        while True:
            with source_errors():
                piece = next(reading, None)
            if piece is None:
                break
            slab_box, slab = piece
            boxes = [box.shift(slab_box.start) for box in tile(slab_box.shape, strip)]
            yield from self.pool.map(visit, boxes, [slab[box.within(slab_box)] for box in boxes])
            del piece, slab  # before the next one is read
            self.work.advance()
        if header.is_z_slowest:
            self._sha256 = digest.hexdigest()


def _write_quantised(
    writer: ProductWriter, sweep: _Sweep, quantisation: Quantisation, measured: Moments
) -> dict[str, float]:
    """Write the source quantised, and give how: scale, offset, and what it cost."""
    has_empty = measured.empty_voxels > 0

    def store(box: Box, block: NDArray[Any]) -> float:
        stored = quantisation.encode(block)
        writer[box.slices] = stored
        errors = quantisation.decode(stored) - block.astype(np.float64)
        is_valid = np.isfinite(errors)
        if has_empty:
            is_valid &= block != 0
        return float(np.square(errors, where=is_valid, out=np.zeros_like(errors)).sum())

    squares = sum(sweep(store))
    valid = measured.valid
    rmse = sqrt(squares / max(1, valid.n_nonzero))
    return {
        "scale": quantisation.scale,
        "offset": quantisation.offset,
        "clipped_fraction": quantisation.clipped_fraction(measured),
        "rmse": rmse,
        "rmse_over_standard_deviation": rmse / (valid.standard_deviation or 1.0),
    }


def _reference(source: Source) -> float:
    """Give a value amid the data: the median of the middle plane."""
    header = source.header
    if header.dtype.kind != "f" or header.dtype.itemsize < 4:
        return 0.0
    middle, (_, n_y, n_x) = header.shape[0] // 2, header.shape
    plane = read_window(source.path, header, Box((middle, 0, 0), (middle + 1, n_y, n_x)))
    values = plane[np.isfinite(plane) & (plane != 0)]
    return float(np.median(values)) if values.size else 0.0


def _window(
    statistics: Mapping[str, Any], quantisation: Quantisation | None
) -> tuple[float, float, float, float] | None:
    """Give the contrast in stored values: minimum, robust limits, maximum; none for a constant."""
    percentiles = statistics["percentiles"]
    values = [statistics["minimum"], percentiles["0.1"], percentiles["99.9"], statistics["maximum"]]
    if quantisation is not None:
        values = [float(v) for v in quantisation.encode(np.array(values, np.float32))]
    low, start, end, high = values
    return (low, start, end, high) if start < end else None


def _identity(source: Source) -> dict[str, Any]:
    """Give what tells one state of a file from another, without reading it."""
    with source_errors(), disk_errors(source.path, "reading"):
        status = source.path.stat()
    return {
        "path": str(source.path.resolve()),
        "n_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


def _provenance(source: Source, sha256: str) -> dict[str, Any]:
    return {
        "name": source.path.name,
        "n_bytes": source.n_bytes,
        "sha256": sha256,
        "header_base64": base64.b64encode(source.header.raw).decode("ascii"),
        "header": source.header.to_json(),
        "warnings": list(source.warnings),
    }
