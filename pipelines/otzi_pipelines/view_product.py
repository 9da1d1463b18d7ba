"""Verb view-product: density and class probabilities as the viewer reads them, uint8."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from otzi.arguments import (
    CollectionArgument,
    ProbsOption,
    TomogramsArgument,
    chosen_tomograms,
    only_probs,
)
from otzi.box import Box, tile
from otzi.classes import DENSITY_CHANNEL
from otzi.cli import verb
from otzi.collection import open_collection
from otzi.console import Console
from otzi.errors import ConfigurationError, VerificationError
from otzi.events import Listener, ignore
from otzi.parallel import in_threads
from otzi.store.groups import write_group
from otzi.viewable import viewing_problems
from otzi_pipelines.low_pass import PERCENTILES, LowPass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otzi.classes import SegmentClass
    from otzi.store.product import ProductWriter
    from otzi.store.reader import LevelArray
    from otzi.tomogram import Tomogram

__all__ = ["OVERVIEW_LONGEST_VOXELS", "build_view", "command", "overview_level"]

OVERVIEW_LONGEST_VOXELS = 192
"""Fine enough for a 3-D panel of a screen, and 4 channels of a cube of it are 28 MB."""

_DENSITY = {"inverted": True, "smoothing": 1, "percentiles": list(PERCENTILES)}
_BLOCK_VOXELS = 128
_CHUNK_VOXELS = 64


def build_view(tomo: Tomogram, probs: str | None = None, listen: Listener = ignore) -> bool:
    """Publish ``view``; tell whether there was work to do.

    uint8 ``(c, z, y, x)``: the density, low-passed by the mean over 3³ voxels, inverted, so that
    matter is bright, and stretched over its percentiles; then the probabilities of all classes,
    in the order of the class table.
    All channels of a voxel lie in one chunk. The group ``overview`` within it holds one level of
    the pyramid in a single chunk, for 3-D: opacity is composited exactly only within a chunk.

    The attribute ``quantisation`` gives ``value = stored · scale + offset`` for each channel,
    ``probs`` the name of the probabilities, ``ramps`` the limits of every class, as `otzi ramps`
    stored them, ``overview`` the level shown there.

    Parameters
    ----------
    tomo
        In a collection that is open for writing.
    probs
        Name of the probabilities; none for the density alone.
    listen
        Told of the progress.

    Raises
    ------
    NotFoundError
        If there are no such probabilities.
    ConfigurationError
        If they are of another shape, or of other classes than the collection.
    """
    ramps = f"ramps/{probs}"
    parents = ["raw", *([f"probs/{probs}"] if probs else [])]
    if probs and tomo.has(ramps):
        parents.append(ramps)
    recipe = {
        "density": _DENSITY,
        "probs": probs,
        "overview_longest_voxels": OVERVIEW_LONGEST_VOXELS,
    }
    if tomo.is_made("view", recipe, parents):
        return False
    source = _Source(LowPass(tomo), _Probabilities.of(tomo, probs) if probs else None)
    window = source.density.window(listen)
    scale = -(window[1] - window[0]) / 255
    with tomo.write(
        "view",
        dtype=np.uint8,
        recipe=recipe,
        parents=parents,
        channels=source.channels,
        colors=("#ffffff", *(c.color for c in source.classes)),
        chunk_voxels=_CHUNK_VOXELS,
        channels_per_chunk=len(source.channels),
    ) as writer:
        _write_blocks(source, window, writer, listen)
        level = overview_level([grid.shape[1:] for grid in writer.layout.grids])
        _write_overview(writer, level)
        _check_viewable(writer)
        writer.attributes |= {
            "quantisation": {name: {"scale": 1 / 255, "offset": 0.0} for name in source.channels}
            | {DENSITY_CHANNEL: {"scale": scale, "offset": window[1]}},
            "probs": probs,
            "ramps": tomo.attributes(ramps)["ramps"] if ramps in parents else {},
            "overview": {"level": level},
        }
    return True


def overview_level(shapes: Sequence[tuple[int, ...]]) -> int:
    """Give the finest level whose longest axis is at most 192 voxels, otherwise the coarsest."""
    fitting = (i for i, shape in enumerate(shapes) if max(shape) <= OVERVIEW_LONGEST_VOXELS)
    return next(fitting, len(shapes) - 1)


@dataclass(frozen=True)
class _Probabilities:
    """The probabilities, channels in the order of the class table."""

    array: LevelArray
    classes: tuple[SegmentClass, ...]
    order: list[int]
    """Channel of each class."""

    @classmethod
    def of(cls, tomo: Tomogram, name: str) -> _Probabilities:
        product = f"probs/{name}"
        array, channels = tomo.array(product), tomo.image(product).channels or ()
        if array.shape[-3:] != tomo.shape:
            raise ConfigurationError(
                f"{product} of {tomo.id} is {array.shape[-3:]}, raw is {tomo.shape}: segment it "
                "again"
            )
        classes = tomo.classes.having(channels)
        if classes is None:
            raise ConfigurationError(
                f"{product} of {tomo.id} has the classes {', '.join(channels) or 'none'}, the "
                f"collection has {', '.join(tomo.classes.names)}: segment it again"
            )
        return cls(array, classes.classes, [channels.index(name) for name in classes.names])

    def __call__(self, box: Box) -> NDArray[np.uint8]:
        values: NDArray[Any] = self.array[(slice(None), *box.slices)][self.order]
        if values.dtype != np.uint8:
            values = np.rint(np.clip(values.astype(np.float32), 0, 1) * np.float32(255))
        return values.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class _Source:
    density: LowPass
    probabilities: _Probabilities | None

    @property
    def classes(self) -> tuple[SegmentClass, ...]:
        return self.probabilities.classes if self.probabilities else ()

    @property
    def channels(self) -> tuple[str, ...]:
        return (DENSITY_CHANNEL, *(c.name for c in self.classes))


def _write_blocks(
    source: _Source, window: tuple[float, float], writer: ProductWriter, listen: Listener
) -> None:
    n_channels = len(source.channels)
    low, high = (np.float32(limit) for limit in window)
    span = high - low or np.float32(1)
    boxes = list(tile(source.density.shape, (_BLOCK_VOXELS,) * 3))

    def write(box: Box) -> None:
        region = (slice(n_channels), *box.slices)
        if writer.is_done(region):
            return
        block = np.empty((n_channels, *box.shape), np.uint8)
        matter = (high - source.density(box)) / span
        block[0] = np.rint(np.clip(matter, 0, 1, out=matter) * np.float32(255))
        if source.probabilities:
            block[1:] = source.probabilities(box)
        writer[region] = block

    for _ in in_threads(write, boxes, "view", "blocks", listen):
        pass


def _write_overview(writer: ProductWriter, level: int) -> None:
    """Write a level once more, as an image of one level and one chunk."""
    voxels = np.asarray(zarr.open_array(writer.path / str(level), mode="r")[:])
    folder = writer.path / "overview"
    ome = writer.image.to_json()
    image = ome["multiscales"][0]
    image["name"] += " overview"
    image["datasets"] = [image["datasets"][level] | {"path": "0"}]
    write_group(folder, {"ome": ome, "otzi": {"kind": "overview", "level": level}})
    zarr.create_array(
        folder / "0",
        data=voxels,
        chunks=voxels.shape,
        compressors=writer.layout.encoding.zarr_codecs(1),
        fill_value=0,
        dimension_names=writer.image.axes,
    )


def _check_viewable(writer: ProductWriter) -> None:
    axes = writer.image.to_json()["multiscales"][0]["axes"]
    for path in sorted(writer.path.rglob("zarr.json")):
        array = json.loads(path.read_text())
        problems = viewing_problems(array, axes) if array["node_type"] == "array" else []
        if problems:
            raise VerificationError(f"{path.parent} could not be shown: {'; '.join(problems)}")


@verb
def command(
    console: Console,
    collection: CollectionArgument,
    tomograms: TomogramsArgument = None,
    *,
    probs: ProbsOption = None,
) -> None:
    """Prepare tomograms for the viewer: density and probabilities as uint8, with a 3-D overview."""
    col = open_collection(collection, mode="r+")
    made = {}
    for tomo in chosen_tomograms(col, tomograms):
        if not build_view(tomo, probs or only_probs(tomo), console):
            console.say(f"{tomo.id}: view is done already")
        made[tomo.id] = str(tomo.path("view"))
    console.result(made, "\n".join(made.values()))
