"""What is said after labelling: sums that are right, and a table that lines up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from otzi.events import Advanced, Event, step
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import StrokeForest
from otzi_pipelines.label.report import RunReport, forest_facts, forest_text

BANK = FeatureBank(
    scales=(0.3, 1.0, 10.0), features=("gaussian_smoothing", "laplacian_of_gaussian")
)
CLASSES = ("background", "membrane", "a_class_of_a_long_name")


@pytest.fixture(scope="module")
def forest() -> StrokeForest:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300).astype(np.uint8)
    values = (rng.normal(size=(300, len(BANK.names))) + labels[:, None]).astype(np.float32)
    return StrokeForest.fit(values, labels, bank=BANK, classes=CLASSES, n_trees=20)


def test_importances_are_summed_by_feature_and_by_scale(forest: StrokeForest) -> None:
    facts = forest_facts(forest)
    each = facts["importance"]
    assert facts["importance_by_scale"] == pytest.approx(
        {
            "0.3": each["gaussian_smoothing_0.3"],
            "1": each["gaussian_smoothing_1"] + each["laplacian_of_gaussian_1"],
            "10": each["gaussian_smoothing_10"] + each["laplacian_of_gaussian_10"],
        }
    )
    assert list(facts["importance_by_feature"]) == list(BANK.features)
    assert sum(facts["importance_by_feature"].values()) == pytest.approx(1, abs=1e-4)


def test_the_origin_of_each_channel_is_what_its_name_says() -> None:
    bank = FeatureBank()
    assert len(bank.origins) == len(bank.names)
    for name, (feature, scale) in zip(bank.names, bank.origins, strict=True):
        assert name.startswith(f"{feature}_{scale:g}")
        assert name.removeprefix(f"{feature}_{scale:g}") in ("", "_0", "_1", "_2")


def test_the_table_lists_the_confusion(forest: StrokeForest) -> None:
    facts = forest_facts(forest)
    confusion = np.array(facts["oob_confusion"])
    assert confusion.shape == (3, 3)
    head, background, membrane, other, right, *rest = forest_text(facts).splitlines()
    assert head.split() == ["drawn", "as", *CLASSES, "right"]
    assert len(head) == len(background) == len(membrane) == len(other)
    assert membrane.split()[:4] == ["membrane", *map(str, confusion[1])]
    assert membrane.endswith(f"{confusion[1, 1] / confusion[1].sum():.1%}")
    assert other.endswith("–")
    assert right.startswith(f"{confusion.trace() / confusion.sum():.1%} right")
    assert [line.partition(":")[0] for line in rest] == [
        "importance by feature",
        "importance by scale",
        "importance by channel",
    ]


def test_without_voxels_out_of_the_bag_there_is_no_table(forest: StrokeForest) -> None:
    training = replace(forest.training, oob_accuracy=None, oob_confusion=None)
    facts = forest_facts(replace(forest, training=training))
    assert facts["oob_confusion"] is None
    assert forest_text(facts).startswith("importance by feature")


def test_a_run_is_measured_by_its_events() -> None:
    seen: list[Event] = []
    report = RunReport(seen.append)
    with step(report, "pseudo-labels ts_001"):
        with step(report, "forest", 7, "trees"):
            pass
        with step(report, "labels", 3_000_000, "voxels") as work:
            work.advance(1_000_000)
            work.advance(2_000_000)
    assert Advanced("labels", 2_000_000) in seen
    assert list(report.seconds) == ["forest", "labels", "pseudo-labels ts_001"]
    report.seconds = {"forest": 1.25, "labels": 2.0, "all": 4.0}
    report.peak_memory_bytes = 512_000_000
    assert report.to_json() == {
        "seconds": 4.0,
        "stages": {"forest": 1.25, "labels": 2.0},
        "n_voxels": 3_000_000,
        "mvoxel_per_second": 1.5,
        "peak_memory_bytes": 512_000_000,
    }
    assert str(report) == (
        "3.0 Mvoxel in 4.0 s: forest 1.2 s, labels 2.0 s (1.50 Mvoxel/s); peak memory 512.0 MB"
    )
