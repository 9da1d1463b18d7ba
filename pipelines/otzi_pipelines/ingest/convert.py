"""One source into one ``raw`` product: slab by slab, statistics and digest in the same read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.box import Box
from otzi.errors import SourceError
from otzi.mrc import read_window
from otzi.store.moments import Moments
from otzi.store.presets import Quantisation, quantisation_for
from otzi.store.publish import staging_folder
from otzi_pipelines.ingest.measure import Measured
from otzi_pipelines.ingest.narrow import DoesNotFit, exact_dtypes, narrowed
from otzi_pipelines.ingest.provenance import keep_extended_header, provenance
from otzi_pipelines.ingest.source_files import reading_source
from otzi_pipelines.ingest.sources import Source, unpacked
from otzi_pipelines.ingest.strips import CHUNK_VOXELS, StripReader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from otzi.events import Listener
    from otzi.store.product import ProductWriter
    from otzi.tomogram import Tomogram

__all__ = ["convert"]


def convert(
    source: Source,
    tomo: Tomogram,
    recipe: Mapping[str, Any],
    *,
    depth: int,
    threads: int,
    listen: Listener,
) -> tuple[str, ...]:
    """Publish a source as the ``raw`` of a tomogram, by its recipe; give what is odd about it.

    A compressed source is unpacked first. The preset ``exact`` reads it once, or once more if a
    narrower type turns out not to hold it; the others read it once more to know how to quantise.
    What is measured does not depend on `depth` and `threads`.

    Raises
    ------
    SourceError
        If the source cannot be read to its end, holds nothing finite, or not what its preset needs.
    """
    workspace = tomo.collection.workspace
    staging = staging_folder(workspace, workspace / "tomograms" / tomo.id / "source")
    with unpacked(source, staging) as whole, ThreadPoolExecutor(threads) as pool:
        conversion = _Conversion(whole, tomo, recipe, StripReader(whole, depth, pool, listen))
        if recipe["preset"] != "exact":
            return conversion.quantised(str(recipe["preset"]), recipe.get("nonfinite"))
        *narrower, own = exact_dtypes(whole)
        for dtype in narrower:
            with suppress(DoesNotFit):
                return conversion.exact(dtype)
        return conversion.exact(own)


@dataclass(frozen=True, slots=True)
class _Conversion:
    """The ways in which a source becomes a product; each publishes and gives what is odd."""

    source: Source
    tomo: Tomogram
    recipe: Mapping[str, Any]
    read: StripReader

    def exact(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        """Store every value as it is, in the source's type or a narrower one."""
        nothing = Measured(Moments.none(dtype, _reference(self.source)))

        def store(box: Box, block: NDArray[Any]) -> Measured:
            stored = block if block.dtype == dtype else narrowed(block, dtype)
            writer[box.slices] = stored
            return nothing.of(box, stored)

        with self._writer(dtype) as writer:
            strips = self.read(f"ingest {self.tomo.id}", store)
            measured = reduce(Measured.merge, strips, nothing)
            return self._describe(writer, measured, None)

    def quantised(self, preset: str, nonfinite: str | float | None) -> tuple[str, ...]:
        """Measure, then store in fewer bits; `nonfinite` is None, ``mean``, or a value."""
        source = self.source
        nothing = Measured(Moments.none(source.header.dtype, _reference(source)))
        strips = self.read(f"measure {self.tomo.id}", nothing.of)
        measured = reduce(Measured.merge, strips, nothing)
        moments = measured.moments
        fill = None
        if nonfinite is not None and moments.nonfinite_voxels:
            moments = measured.without_nonfinite()
            fill = _fill_value(nonfinite, moments)
        quantisation = quantisation_for(preset, moments)
        if quantisation is None:
            raise AssertionError(f"{preset} does not quantise")
        with self._writer(quantisation.dtype) as writer:
            rmse = self._store(writer, quantisation, measured.moments, fill)
            if not quantisation.is_identity:
                writer.attributes["quantisation"] = {
                    "scale": quantisation.scale,
                    "offset": quantisation.offset,
                    "clipped_fraction": quantisation.clipped_fraction(moments),
                    "rmse": rmse,
                    "rmse_over_standard_deviation": rmse
                    / (moments.valid.standard_deviation or 1.0),
                }
            if fill is not None:
                writer.attributes["nonfinite_filled_with"] = fill
            return self._describe(writer, measured, quantisation)

    def _store(
        self,
        writer: ProductWriter,
        quantisation: Quantisation,
        moments: Moments,
        fill: float | None,
    ) -> float:
        """Write the source quantised, and give the error that this makes in the valid region."""
        has_empty = moments.empty_voxels > 0

        def store(box: Box, block: NDArray[Any]) -> float:
            values = block if fill is None else np.where(np.isfinite(block), block, fill)
            stored = quantisation.encode(values)
            writer[box.slices] = stored
            with np.errstate(invalid="ignore"):
                errors = quantisation.decode(stored) - block.astype(np.float64)
            is_valid = np.isfinite(errors)
            if has_empty:
                is_valid &= block != 0
            return float(np.square(errors, where=is_valid, out=np.zeros_like(errors)).sum())

        squares = sum(self.read(f"ingest {self.tomo.id}", store))
        return sqrt(squares / max(1, moments.valid.n_nonzero))

    def _writer(self, dtype: np.dtype[Any]) -> AbstractContextManager[ProductWriter]:
        return self.tomo.write(
            "raw",
            dtype=dtype,
            shape=self.source.header.shape,
            spacing_angstrom=self.source.spacing_angstrom,
            recipe=self.recipe,
            chunk_voxels=CHUNK_VOXELS,
            inputs={"source": self.source.identity},
        )

    def _describe(
        self, writer: ProductWriter, measured: Measured, quantisation: Quantisation | None
    ) -> tuple[str, ...]:
        """Say in the product what was measured and where it comes from; give what is odd."""
        source, statistics = self.source, measured.to_json()
        source.check_digest(self.read.sha256)
        warnings = source.warnings + tuple(_oddities(statistics))
        said = provenance(replace(source, warnings=warnings), self.read.sha256)
        extended = keep_extended_header(source, writer.path)
        if extended is not None:
            said["extended_header"] = extended
        if missing := source.header.missing_sections:
            there = source.header.stored_shape[0]
            writer.attributes["salvaged"] = {"sections": there, "of": there + missing}
        writer.attributes["statistics"] = statistics
        writer.attributes["source"] = said
        writer.image = replace(writer.image, window=_window(statistics, quantisation))
        return warnings


def _fill_value(nonfinite: str | float, moments: Moments) -> float:
    if not isinstance(nonfinite, str):
        low, high = min(moments.minimum, 0.0), max(moments.maximum, 0.0)
        if not low <= nonfinite <= high:
            raise SourceError(
                f"--nonfinite fill={nonfinite:g} lies outside the data, {low:g} to {high:g}: "
                "give a value within, or fill for the mean"
            )
        return nonfinite
    return moments.valid.mean


def _oddities(statistics: Mapping[str, Any]) -> list[str]:
    found = []
    if statistics["constant"]:
        found.append(f"data: every voxel is {statistics['minimum']:g}")
    if n := statistics["nonfinite_voxels"]:
        box = statistics["nonfinite_box"]
        found.append(f"data: {n} voxels are not finite, from {box['start']} to {box['stop']}")
    return found


def _reference(source: Source) -> float:
    """Give a value amid the data: the median of the middle plane."""
    header = source.header
    if header.dtype.kind != "f" or header.dtype.itemsize < 4:
        return 0.0
    middle, (_, n_y, n_x) = header.shape[0] // 2, header.shape
    with reading_source(source.path):
        box = Box((middle, 0, 0), (middle + 1, n_y, n_x))
        plane = read_window(source.data_path, header, box)
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
