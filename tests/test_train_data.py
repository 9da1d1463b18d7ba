"""What is learnt from and what is held out: apart, of one class table, and lazily read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from labelled import UNKNOWN, add_labels, shells
from otzi.errors import ConfigurationError
from otzi.events import Event, Warned
from otzi_pipelines.train.batch import density_of, target_of
from otzi_pipelines.train.data import Roles, TrainingData, training_data
from otzi_pipelines.train.settings import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.events import Listener
    from otzi.tomogram import Tomogram
    from otzi_pipelines.train.crops import Crop

SHAPE = (20, 60, 30)
SETTINGS: dict[str, Any] = {"crop_voxels": 16, "grid_voxels": 8, "held_out": 0.3}


def data_of(tomograms: list[Tomogram], settings: TrainSettings, listen: Listener) -> TrainingData:
    return training_data(Roles(tuple(tomograms), ()), "net", settings, listen)


def arrays(crop: Crop) -> tuple[np.ndarray, np.ndarray]:
    cpu = torch.device("cpu")
    return density_of(crop, cpu).numpy(), target_of(crop, cpu).numpy()


@pytest.fixture
def tomograms(add_tomogram: Callable[..., Tomogram]) -> list[Tomogram]:
    made = []
    for seed in (0, 1):
        density, labels = shells(SHAPE, seed)
        made.append(add_tomogram(density, f"ts_{seed}"))
        add_labels(made[-1], labels)
    return made


def test_nothing_held_out_is_ever_learnt_from(tomograms: list[Tomogram]) -> None:
    """Not even as the surroundings of a crop: other voxels there leave every crop as it is."""
    settings = TrainSettings(**SETTINGS)
    before = data_of(tomograms, settings, pytest.fail)
    crops = [arrays(before.source[i]) for i in range(40)]
    judged = [arrays(crop) for crop in before.crops(before.held_out)]
    for tomo in tomograms:
        # The last 30 % of y, the longest axis.
        statistics = tomo.attributes("raw")["statistics"]
        density = tomo.raw.values.copy()
        density[:, 42:] = 77
        with tomo.write("raw", dtype="int16", shape=SHAPE, recipe={"made": "again"}) as writer:
            writer[0:20, 0:60, 0:30] = density
            writer.attributes["statistics"] = statistics
        labels = tomo.labels("net").values.copy()
        labels[:, 42:] = 0
        add_labels(tomo, labels)
    after = data_of(tomograms, TrainSettings(**SETTINGS, balance=0.0), pytest.fail)
    same = data_of(tomograms, settings, pytest.fail)
    assert all(box.stop[1] <= 42 for _, box in map(after.source.place, range(300)))
    for i in range(40):
        _, box = same.source.place(i)
        if before.source.place(i)[1] == box:
            for old, new in zip(crops[i], arrays(same.source[i]), strict=True):
                np.testing.assert_array_equal(old, new)
    for (old, _), crop in zip(judged, same.crops(same.held_out), strict=True):
        new, _ = arrays(crop)
        assert not np.array_equal(old, new)
        assert len(np.unique(new)) == 1


def test_as_many_places_are_held_out_as_asked_for(tomograms: list[Tomogram]) -> None:
    def places(n: int) -> list[tuple[str, Any]]:
        settings = TrainSettings(**SETTINGS, validation_crops=n)
        return [(v.id, b) for v, b in data_of(tomograms, settings, print).held_out]

    # 20, 18 and 30 voxels are 2 crops each: 8 in a tomogram.
    assert len(places(100)) == len(set(places(100))) == 16
    assert {id_ for id_, _ in places(2)} == {"ts_0", "ts_1"}


def test_classes_must_be_the_same(tomograms: list[Tomogram]) -> None:
    soft = np.full((2, *SHAPE), 127, np.uint8)
    add_labels(tomograms[1], soft, classes=("background", "foreground"))
    with pytest.raises(ConfigurationError, match=r"ts_1 have classes background, foreground, .*"):
        data_of(tomograms, TrainSettings(**SETTINGS), pytest.fail)


def test_a_class_that_cannot_be_learnt_is_told(tomograms: list[Tomogram]) -> None:
    for tomo in tomograms:
        labels = shells(SHAPE)[1]
        labels[labels == 1] = UNKNOWN
        add_labels(tomo, labels)
    events = list[Event]()
    data_of(tomograms, TrainSettings(**SETTINGS), events.append)
    assert events == [
        Warned("no membrane is labelled where the network learns: it cannot find any")
    ]


def test_another_voxel_size_is_told(tomograms: list[Tomogram]) -> None:
    statistics = tomograms[1].attributes("raw")["statistics"]
    with tomograms[1].write(
        "raw", dtype="int16", shape=SHAPE, spacing_angstrom=(5.0, 5.0, 5.0), recipe={}
    ) as writer:
        writer[0:20, 0:60, 0:30] = shells(SHAPE)[0]
        writer.attributes["statistics"] = statistics
    add_labels(tomograms[0].collection["ts_1"], shells(SHAPE)[1])
    events = list[Event]()
    collection = tomograms[0].collection
    data_of(list(collection), TrainSettings(**SETTINGS), events.append)
    (warning,) = events
    assert isinstance(warning, Warned)
    assert "ts_1 are (5.0, 5.0, 5.0) Å, of ts_0 (20.0, 10.0, 10.0) Å" in warning.message
