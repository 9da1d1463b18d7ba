"""What a training learns from and what it is judged by, of all labelled tomograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otzi.errors import ConfigurationError
from otzi.events import Listener, Warned
from otzi_pipelines.train.crops import CropSource, LabelledVolume, covering_boxes, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otzi.box import Box
    from otzi.tomogram import Tomogram
    from otzi_pipelines.train.crops import Crop
    from otzi_pipelines.train.settings import TrainSettings

__all__ = ["TrainingData", "training_data"]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Crops to learn from, and places that are never learnt from."""

    classes: tuple[str, ...]
    source: CropSource
    held_out: tuple[tuple[LabelledVolume, Box], ...]

    def held_out_crops(self) -> Iterator[Crop]:
        """Yield the crops to judge by, always the same."""
        return (volume.read(box, self.source.crop_voxels) for volume, box in self.held_out)


def training_data(
    tomograms: Sequence[Tomogram], labels: str, settings: TrainSettings, listen: Listener
) -> TrainingData:
    """Give the crops of these tomograms; the end of each one's longest axis is held out.

    Raises
    ------
    ConfigurationError
        If the labels of two tomograms have other classes, or nothing is labelled.
    """
    volumes = [LabelledVolume(tomo, labels) for tomo in tomograms]
    classes = _common_classes(volumes)
    parts = [split(volume.shape, settings.held_out) for volume in volumes]
    source = CropSource(
        volumes,
        [to_learn for to_learn, _ in parts],
        settings.crop_voxels,
        seed=settings.seed,
        grid_voxels=settings.grid_voxels,
        balance=settings.balance,
        turns=settings.turns,
    )
    _warn_of_other_spacings(tomograms, listen)
    for channel, name in enumerate(classes):
        if channel not in source.classes_present:
            listen(Warned(f"no {name} is labelled where the network learns: it cannot find any"))
    rests = [rest for _, rest in parts]
    return TrainingData(classes, source, _spread(volumes, rests, settings))


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


def _spread(
    volumes: Sequence[LabelledVolume], regions: Sequence[Box], settings: TrainSettings
) -> tuple[tuple[LabelledVolume, Box], ...]:
    places = [
        (volume, box)
        for volume, region in zip(volumes, regions, strict=True)
        for box in covering_boxes(region, settings.crop_voxels)
    ]
    n = min(settings.validation_crops, len(places))
    return tuple(places[i] for i in np.linspace(0, len(places) - 1, n).round().astype(int))
