"""What a training learns from and what it is judged by, of all labelled tomograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.arguments import chosen_tomograms
from otzi.box import Box
from otzi.errors import ConfigurationError, NotFoundError, UsageError
from otzi.events import Listener, Noted, Warned
from otzi.normalise import ROBUST
from otzi.split import read_split
from otzi_pipelines.train.crops import CropSource, LabelledVolume, covering_boxes, cut

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otzi.collection import Collection
    from otzi.tomogram import Tomogram
    from otzi_pipelines.train.crops import Crop
    from otzi_pipelines.train.settings import TrainSettings

    Place = tuple[LabelledVolume, Box]

__all__ = ["Roles", "TrainingData", "roles", "training_data", "warn_of_seen"]


@dataclass(frozen=True, slots=True)
class Roles:
    """Labelled tomograms by what they are for; none of a split's ``test``."""

    learnt_from: tuple[Tomogram, ...]
    judged_by: tuple[Tomogram, ...]
    """Empty where the end of each of the others is."""

    @property
    def tomograms(self) -> tuple[Tomogram, ...]:
        """All of them."""
        return self.learnt_from + self.judged_by


def roles(
    collection: Collection, labels: str, listen: Listener, ids: Sequence[str] | None = None
) -> Roles:
    """Give which labelled tomograms of a collection are for what, by its split if it has one.

    Parameters
    ----------
    collection, labels
        Where, and the name of the labels.
    listen
        Told who is left out.
    ids
        The only ones to take; all with labels if None.

    Raises
    ------
    NotFoundError
        If none has such labels, one that is named has not, or none of those that the split leaves
        to learn from.
    UsageError
        If one that is named is kept for the test, or has no part in the split.
    """
    named = sorted(set(ids or ()))
    labelled = [
        tomo for tomo in chosen_tomograms(collection, named) if tomo.has(f"labels/{labels}")
    ]
    if missing := [id_ for id_ in named if id_ not in {tomo.id for tomo in labelled}]:
        raise NotFoundError(
            f"{', '.join(missing)} has no labels/{labels}: make them with "
            f"`otzi pseudolabel {collection.path} {missing[0]} --name {labels}`"
        )
    if not labelled:
        raise NotFoundError(
            f"no tomogram of {collection.path} has labels/{labels}: make them with "
            f"`otzi pseudolabel {collection.path} TOMO --name {labels}`"
        )
    split = read_split(collection)
    if split is None:
        return Roles(tuple(labelled), ())
    for id_ in named:
        if (part := split.parts.get(id_)) not in ("train", "val"):
            kept = "is kept for the test" if part else "has no part in the split"
            raise UsageError(
                f"{id_} {kept}: leave it out, or otzi split {collection.path} {id_} --into train"
            )
    by_part = {
        part: tuple(tomo for tomo in labelled if split.parts.get(tomo.id) == part)
        for part in ("train", "val")
    }
    for tomo in labelled:
        if tomo.id not in split.parts:
            listen(
                Warned(
                    f"{tomo.id} has no part in the split and is left out: otzi split "
                    f"{collection.path} {tomo.id} --into train"
                )
            )
    if not by_part["train"]:
        raise NotFoundError(
            f"none of {', '.join(tomo.id for tomo in labelled)}, which have labels/{labels}, is in "
            f"part train of the split: otzi split {collection.path} TOMO --into train"
        )
    if not by_part["val"]:
        listen(Noted("no tomogram of part val has labels: the end of each other one is held out"))
    return Roles(by_part["train"], by_part["val"])


def warn_of_seen(collection: Collection, training: Mapping[str, Any], listen: Listener) -> None:
    """Tell which tomograms, kept for validation or test now, a model has learnt from before.

    `training` is that of its card.
    """
    split = read_split(collection)
    if split is None:
        return
    judged_by = training.get("judged_by", ())
    seen = {t["raw"] for t in training.get("tomograms", ()) if t["id"] not in judged_by}
    for id_ in (*split.of("val"), *split.of("test")):
        if id_ in collection and collection[id_].digest("raw") in seen:
            listen(
                Warned(
                    f"the model to start from has learnt from {id_}, which is in part "
                    f"{split.parts[id_]}: it says nothing of new tomograms any more"
                )
            )


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Crops to learn from, and places that are never learnt from."""

    classes: tuple[str, ...]
    source: CropSource
    learnt_from: tuple[Place, ...]
    """Places spread over what is learnt from, as many as there are to judge by."""
    held_out: tuple[Place, ...]

    def crops(self, places: Sequence[Place]) -> Iterator[Crop]:
        """Yield the crops at places."""
        return (volume.read(box, self.source.crop_voxels) for volume, box in places)


def training_data(
    roles: Roles,
    labels: str,
    settings: TrainSettings,
    listen: Listener,
    normalisation: str = ROBUST,
) -> TrainingData:
    """Give the crops of these tomograms.

    Where none is there to judge by, it is the end of each one's longest axis.

    Raises
    ------
    ConfigurationError
        If the labels of two tomograms have other classes, labels do not fit their tomogram, or
        nothing is labelled.
    """
    volumes, judges = (
        [LabelledVolume(tomo, labels, normalisation) for tomo in tomograms]
        for tomograms in (roles.learnt_from, roles.judged_by)
    )
    classes = _common_classes([*volumes, *judges])
    if judges:
        regions = [Box.whole(volume.shape) for volume in volumes]
        rests = [(volume, Box.whole(volume.shape)) for volume in judges]
    else:
        cuts = [cut(volume.shape, settings.held_out) for volume in volumes]
        regions = [to_learn for to_learn, _ in cuts]
        rests = [(volume, rest) for volume, (_, rest) in zip(volumes, cuts, strict=True)]
    source = CropSource(
        volumes,
        regions,
        settings.crop_voxels,
        seed=settings.seed,
        grid_voxels=settings.grid_voxels,
        balance=settings.balance,
    )
    _warn_of_other_spacings(roles.tomograms, listen)
    for channel, name in enumerate(classes):
        if channel not in source.classes_present:
            listen(Warned(f"no {name} is labelled where the network learns: it cannot find any"))
    learnt_from = _spread(list(zip(volumes, regions, strict=True)), settings)
    return TrainingData(classes, source, learnt_from, _spread(rests, settings))


def _common_classes(volumes: Sequence[LabelledVolume]) -> tuple[str, ...]:
    classes = volumes[0].classes
    for volume in volumes:
        if volume.classes != classes:
            raise ConfigurationError(
                f"the labels of {volume.id} have classes {', '.join(volume.classes)}, those of "
                f"{volumes[0].id} {', '.join(classes)}: label both alike"
            )
    return classes


def _warn_of_other_spacings(tomograms: Sequence[Tomogram], listen: Listener) -> None:
    first = tomograms[0]
    for tomo in tomograms[1:]:
        if not np.allclose(tomo.spacing_angstrom, first.spacing_angstrom, rtol=0.1):
            listen(
                Warned(
                    f"voxels of {tomo.id} are {tomo.spacing_angstrom} Å, of {first.id} "
                    f"{first.spacing_angstrom} Å: a network learns one scale"
                )
            )


def _spread(regions: Sequence[Place], settings: TrainSettings) -> tuple[Place, ...]:
    places = [
        (volume, box)
        for volume, region in regions
        for box in covering_boxes(region, settings.crop_voxels)
    ]
    n = min(settings.validation_crops, len(places))
    return tuple(places[i] for i in np.linspace(0, len(places) - 1, n).round().astype(int))
