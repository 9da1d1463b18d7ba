"""OME-Zarr 0.5: what we publish is valid by the published schemas and opens in another reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import referencing
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from referencing.jsonschema import DRAFT202012

from otzi.errors import ConfigurationError
from otzi.ome import Multiscale, level_scale, level_translation

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SCHEMAS = Path(__file__).parent / "data" / "ngff"


def check(attributes: dict[str, Any], schema: str) -> None:
    documents = [json.loads(path.read_text()) for path in SCHEMAS.glob("*.schema")]
    registry: Any = referencing.Registry().with_resources(
        (d["$id"], DRAFT202012.create_resource(d)) for d in documents
    )
    document = json.loads((SCHEMAS / f"{schema}.schema").read_text())
    Draft202012Validator(document, registry=registry).validate(attributes)


def test_every_product_is_valid_and_opens_in_ome_zarr(
    add_tomogram: Callable[..., Tomogram],
) -> None:
    volume = np.random.default_rng(0).normal(0, 50, (70, 80, 90)).astype(np.float32)
    tomo = add_tomogram(volume)
    probs = np.zeros((3, 70, 80, 90), np.uint8)
    with tomo.write(
        "probs/net", dtype="uint8", channels=tomo.classes.names, recipe={}, parents=("raw",)
    ) as writer:
        da.store(da.from_array(probs, chunks=(3, 64, 64, 64)), writer, lock=False)
    with tomo.write(
        "labels/hard",
        dtype="uint8",
        colors=[c.color for c in tomo.classes],
        downsample="mode",
        recipe={},
    ) as writer:
        da.store(da.from_array(probs[0], chunks=64), writer, lock=False)
    for product, n_axes in (("raw", 3), ("probs/net", 4), ("labels/hard", 3)):
        attributes = json.loads((tomo.path(product) / "zarr.json").read_text())["attributes"]
        check(attributes, "strict_image")
        if product == "labels/hard":
            check(attributes, "strict_label")
        location = parse_url(tomo.path(product))
        assert location is not None
        node = next(iter(Reader(location)()))
        assert [level.ndim for level in node.data] == [n_axes, n_axes]
        axes = [axis["name"] for axis in node.metadata["axes"]]
        assert axes == ["c", "z", "y", "x"][-n_axes:]
    np.testing.assert_array_equal(
        next(iter(Reader(parse_url(tomo.path("raw")))())).data[0].compute(), volume
    )


spacings = st.tuples(*[st.floats(0.1, 100)] * 3)


@given(spacings, st.integers(0, 5))
def test_a_level_voxel_lies_amid_the_voxels_it_averages(
    spacing: tuple[float, float, float], level: int
) -> None:
    finer = np.arange(2**level)[:, None] * np.array(spacing)
    np.testing.assert_allclose(level_translation(spacing, level), finer.mean(axis=0))
    np.testing.assert_allclose(level_scale(spacing, level), np.array(spacing) * 2**level)


@given(
    spacings,
    st.integers(1, 5),
    st.none() | st.lists(st.text(max_size=8), min_size=1, max_size=4).map(tuple),
)
def test_metadata_come_back(
    spacing: tuple[float, float, float], n_levels: int, channels: tuple[str, ...] | None
) -> None:
    window = None if channels is None else (0.0, 0.0, 255.0, 255.0)
    image = Multiscale("name", spacing, n_levels, channels, window=window)
    read = Multiscale.from_json({"ome": image.to_json()})
    assert (read.spacing_angstrom, read.n_levels, read.channels) == (spacing, n_levels, channels)


def test_nanometres_are_understood_and_nonsense_is_not() -> None:
    document = Multiscale("name", (1.0, 2.0, 3.0), 1).to_json()
    for axis in document["multiscales"][0]["axes"]:
        axis["unit"] = "nanometer"
    assert Multiscale.from_json({"ome": document}).spacing_angstrom == (10.0, 20.0, 30.0)
    document["multiscales"][0]["axes"].reverse()
    with pytest.raises(ConfigurationError, match="axes x, y, z"):
        Multiscale.from_json({"ome": document})
    with pytest.raises(ConfigurationError, match="no OME-Zarr"):
        Multiscale.from_json({})
