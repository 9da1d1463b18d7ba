"""``probs/NAME``, and ``spread/NAME`` of an ensemble, written cell by cell under an observer."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otzi.tiles.batch import store_tiles
from otzi_pipelines.segment.observe import Observer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from otzi.box import Box
    from otzi.classes import ClassTable
    from otzi.events import Listener
    from otzi.execute import Executor
    from otzi.store.product import ProductWriter
    from otzi.tiles.blend import ProbabilityType
    from otzi.tiles.capability import Capability
    from otzi.tiles.density import NormalisedDensity
    from otzi.tiles.ensemble import Ensemble
    from otzi.tiles.infer import TorchModel
    from otzi.tomogram import Tomogram

__all__ = ["Recipe", "write_probabilities"]

_MOST_SHARD_VOXELS = 128
"""One cell of the usual tiles: what a kill takes is what was not whole."""
_PARENTS = ("raw",)
_SPREAD_COLOR = "#ffffff"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How probabilities are made: all that decides them, but for the last bits."""

    name: str
    """Of the probabilities."""
    model: str
    """SHA-256 of all that decides what the model gives."""
    tile: int
    overlap: int
    """In voxels."""
    dtype: ProbabilityType
    """As stored."""

    @property
    def product(self) -> str:
        """The probabilities."""
        return f"probs/{self.name}"

    @property
    def spread_product(self) -> str:
        """How far the members of an ensemble differ."""
        return f"spread/{self.name}"

    def to_json(self) -> dict[str, Any]:
        """Give the recipe as products keep it."""
        return {
            "verb": "segment",
            "model": self.model,
            "tile": self.tile,
            "overlap": self.overlap,
            "dtype": self.dtype,
        }

    def is_made(self, tomo: Tomogram, *, with_spread: bool) -> bool:
        """Tell whether all that is to be made is published, from this density."""
        products = [self.product] + [self.spread_product] * with_spread
        return all(tomo.is_made(product, self.to_json(), _PARENTS) for product in products)


def write_probabilities(
    tomo: Tomogram,
    model: TorchModel | Ensemble,
    recipe: Recipe,
    density: NormalisedDensity,
    executor: Executor,
    *,
    classes: ClassTable,
    able: Capability,
    workers: int,
    priority: int,
    listen: Listener,
) -> tuple[Observer, int]:
    """Publish the products of a recipe, and give who saw all cells and how many tiles it took.

    Cells that an interrupted run of the same recipe, arithmetic and batches wrote are read back.

    Raises
    ------
    ModelError
        If what the model gives is no probability; it names the tile.
    VerificationError
        If the density is damaged, or a voxel was not written once, or does not sum to 1.
    """
    plan = able.blocks.plan
    observer = Observer(tomo.shape, classes.names, recipe.dtype, plan)
    n_classes = len(classes)
    with (
        _writer(tomo, recipe, classes, able) as probs,
        _spread_writer(tomo, model, recipe, able) as spread,
    ):
        writers = [probs] if spread is None else [probs, spread]

        def is_done(cell: Box) -> bool:
            return all(writer.is_done((slice(None), *cell.slices)) for writer in writers)

        def take(cell: Box, stored: NDArray[Any]) -> None:
            probs[(slice(None), *cell.slices)] = stored[:n_classes]
            if spread is not None:
                spread[(slice(None), *cell.slices)] = stored[n_classes:]
            observer.see(cell, stored[:n_classes])

        for cell in map(plan.cell, plan.sweep):
            if is_done(cell):
                observer.see(cell, probs.done((slice(None), *cell.slices)))
        n_inferred = store_tiles(
            density,
            model,
            able.blocks,
            take,
            executor,
            dtype=recipe.dtype,
            batch=able.batch,
            workers=workers,
            priority=priority,
            is_done=is_done,
            listen=listen,
            name=f"segment {tomo.id}",
        )
        observer.observation().check(f"{recipe.product} of {tomo.id}")
        probs.attributes["model"] = _description(model)
    return observer, n_inferred


def _description(model: TorchModel | Ensemble) -> dict[str, Any]:
    members = [
        {
            "sha256": member.card.sha256,
            "training": member.card.training,
            "normalisation": member.card.normalisation,
            "temperature": member.card.temperature,
        }
        for member in model.members
    ]
    return {"members": members, "flips": model.flips} if model.n_measures else members[0]


def _writer(
    tomo: Tomogram, recipe: Recipe, classes: ClassTable, able: Capability
) -> AbstractContextManager[ProductWriter]:
    return tomo.write(
        recipe.product,
        dtype=recipe.dtype,
        channels=classes.names,
        colors=[c.color for c in classes],
        window=None if recipe.dtype == "uint8" else (0.0, 0.0, 1.0, 1.0),
        **_how(recipe, able),
    )


def _spread_writer(
    tomo: Tomogram, model: TorchModel | Ensemble, recipe: Recipe, able: Capability
) -> AbstractContextManager[ProductWriter | None]:
    if not model.n_measures or tomo.is_made(recipe.spread_product, recipe.to_json(), _PARENTS):
        return nullcontext()
    return tomo.write(
        recipe.spread_product,
        dtype=recipe.dtype,
        channels=("spread",),
        colors=(_SPREAD_COLOR,),
        window=(0.0, 0.0, 128.0, 255.0) if recipe.dtype == "uint8" else (0.0, 0.0, 0.5, 1.0),
        **_how(recipe, able),
    )


def _how(recipe: Recipe, able: Capability) -> dict[str, Any]:
    """Give what the products of a run have in common."""
    return {
        "chunk_voxels": recipe.tile - recipe.overlap,
        "most_shard_voxels": _MOST_SHARD_VOXELS,
        "downsample": "mean",
        "recipe": recipe.to_json(),
        "parents": _PARENTS,
        "inputs": {"arithmetic": able.arithmetic, "batch": able.batch},
    }
