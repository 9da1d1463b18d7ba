"""A synthetic virion: a collection of one small tomogram with all that the viewer shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import zarr

from otzi.collection import create_collection
from otzi_pipelines import view_product
from otzi_pipelines.view_product import build_view

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from otzi.tomogram import Tomogram

__all__ = ["LOWS", "SHAPE", "SPACING_ANGSTROM", "make_virion", "virion"]

SHAPE = (72, 96, 80)
SPACING_ANGSTROM = 7.84
LOWS = {"background": 0.5, "membrane": 0.2, "spikes": 0.15, "lumen": 0.3}


def virion(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Give raw density, (z, y, x) float32, matter dark, and (4, z, y, x) uint8 probabilities."""
    random = np.random.default_rng(0)
    centre = [(n - 1) / 2 for n in shape]
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    z, y, x = z - centre[0], y - centre[1], x - centre[2] + 4
    radius = np.sqrt(z**2 + y**2 + x**2) / (min(shape) / 2)
    angle = np.arctan2(y, x) + 0.7 * np.arctan2(z, x)
    membrane = np.exp(-(((radius - 0.62) / 0.05) ** 2))
    spikes = np.exp(-(((radius - 0.8) / 0.1) ** 2)) * (np.cos(9 * angle) > 0.3)
    lumen = 1 / (1 + np.exp((radius - 0.5) / 0.03)) * (0.4 + 0.6 * (np.sin(x / 3) > 0))
    noise = 0.15 * random.random((3, *shape))
    wanted = np.clip(np.stack([membrane, spikes, lumen]) * 0.85 + noise, 0, 1)
    wanted /= np.maximum(wanted.sum(0), 1)
    probabilities = np.concatenate([1 - wanted.sum(0, keepdims=True), wanted])
    raw = -3 * membrane - 2 * spikes - lumen + random.normal(0, 0.7, shape)
    return raw.astype(np.float32), np.rint(probabilities * 255).astype(np.uint8)


def make_virion(folder: Path, patch: pytest.MonkeyPatch) -> Tomogram:
    """Publish raw, probabilities, ramps and view; the overview is half as fine as level 0."""
    collection = create_collection(folder)
    raw, probabilities = virion(SHAPE)
    percents = (0.1, 0.5, 1, 50, 99, 99.5, 99.9)
    values = np.percentile(raw, percents)
    tomo = collection.add("virion")
    with tomo.write(
        "raw", dtype="float32", recipe={}, shape=SHAPE, spacing_angstrom=(SPACING_ANGSTROM,) * 3
    ) as writer:
        da.store(da.from_array(raw, chunks=64), writer, lock=False)
        writer.attributes["statistics"] = {
            "percentiles": {f"{p:g}": float(v) for p, v in zip(percents, values, strict=True)}
        }
    with tomo.write(
        "probs/net", dtype="uint8", recipe={}, parents=["raw"], channels=tomo.classes.names
    ) as writer:
        da.store(da.from_array(probabilities, chunks=(4, 64, 64, 64)), writer, lock=False)
    with tomo.stage("ramps/net", recipe={}, parents=["probs/net"]) as staging:
        staging.attributes["ramps"] = {name: {"low": low} for name, low in LOWS.items()}
        curves = np.array([*LOWS.values()], np.float32)[:, None].repeat(SHAPE[0], axis=1)
        zarr.create_array(staging.path / "thresholds", data=curves)
    patch.setattr(view_product, "OVERVIEW_LONGEST_VOXELS", 64)
    build_view(tomo, "net")
    return collection["virion"]
