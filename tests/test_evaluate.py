"""Verb evaluate: whole volumes in blocks are whole volumes, and unlike things are not compared."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageColor
from sklearn.metrics import confusion_matrix, f1_score, log_loss
from typer.testing import CliRunner

from labelled import UNKNOWN, add_labels, one_hot
from otzi.classes import ClassTable
from otzi.errors import MemoryBudgetError, NotFoundError, UsageError
from otzi.metrics import Agreement
from otzi_pipelines.evaluate import boundary as boundary_module
from otzi_pipelines.evaluate.boundary import (
    BoundaryDistance,
    boundary_distances,
    boundary_voxels,
    symmetric_distances,
)
from otzi_pipelines.evaluate.picture import draw_reliability
from otzi_pipelines.evaluate.report import DEFINITIONS, Evaluation, pooled
from otzi_pipelines.evaluate.segmentation import comparable, full_name
from otzi_pipelines.evaluate.verb import command, evaluate
from references import boundary_of_class, distances_between

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result
    from numpy.typing import NDArray

    from otzi.tomogram import Tomogram

SHAPE = (70, 50, 150)
NAMES = ("background", "membrane", "lumen")
SPACING = (20.0, 10.0, 10.0)


def example(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Give soft labels ``(3, z, y, x)`` that sum to 255, and a truth that they often meet."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, SHAPE, p=(0.7, 0.2, 0.1)).astype(np.uint8)
    soft = 0.6 * one_hot(truth) + 0.4 * np.moveaxis(rng.dirichlet((0.6, 0.3, 0.3), SHAPE), -1, 0)
    upto = np.rint(np.cumsum(soft, axis=0) * 255)
    return np.diff(upto, axis=0, prepend=0).astype(np.uint8), truth


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    return add_tomogram(np.ones(SHAPE, np.float32))


def run(tomo: Tomogram, *words: object) -> Result:
    """Call the verb as the command line does."""
    app = typer.Typer(add_completion=False)
    app.command("evaluate")(command)
    return CliRunner().invoke(app, [str(tomo.collection.path), *map(str, words)])


def compared(tomo: Tomogram, prediction: str = "labels/net", **options: Any) -> Evaluation:
    return evaluate(*comparable(tomo, prediction, "labels/truth"), **options)


def test_blocks_are_the_whole_volume(tomo: Tomogram) -> None:
    soft, truth = example()
    truth[3:9, :40] = UNKNOWN
    add_labels(tomo, soft)
    add_labels(tomo, truth, "truth")
    found = compared(tomo).to_json()
    known = truth.ravel() != UNKNOWN
    true, probabilities = truth.ravel()[known], soft.reshape(3, -1)[:, known] / 255
    predicted = probabilities.argmax(axis=0)
    assert found["voxels"] + found["unlabelled_voxels"] == truth.size
    assert found["unlabelled_voxels"] == 6 * 40 * SHAPE[2]
    np.testing.assert_array_equal(found["confusion"], confusion_matrix(true, predicted))
    scores = f1_score(true, predicted, average=None)
    assert list(found["dice"].values()) == pytest.approx(list(scores))
    assert found["macro_dice"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert found["micro_f1"] == pytest.approx(f1_score(true, predicted, average="micro"))
    assert found["foreground_f1"] == pytest.approx(f1_score(true > 0, predicted > 0))
    at_least = np.maximum(probabilities, 1 / 510)
    expected = log_loss(true, (at_least / at_least.sum(axis=0)).T)
    assert found["cross_entropy"] == pytest.approx(expected, rel=0.01)
    whole = Agreement.measure(soft.reshape(3, -1)[:, known], true)
    assert found["calibration_error"] == pytest.approx(whole.calibration_error)
    by_class = list(found["class_calibration_error"].values())
    assert by_class == pytest.approx(list(whole.class_calibration_error))


def test_any_number_of_threads_gives_the_same_bits(tomo: Tomogram) -> None:
    soft, truth = example()
    add_labels(tomo, soft)
    add_labels(tomo, truth, "truth")
    one, three = (compared(tomo, workers=n).agreement for n in (1, 3))
    np.testing.assert_array_equal(one.class_calibration, three.class_calibration)
    assert one.surprise == three.surprise


def test_classes_in_another_order_are_the_same(tomo: Tomogram) -> None:
    soft, truth = example()
    order = [2, 0, 1]
    add_labels(tomo, soft)
    add_labels(tomo, soft[order], "turned", tuple(NAMES[i] for i in order))
    add_labels(tomo, truth, "truth")
    expected = compared(tomo).to_json()
    turned = compared(tomo, "labels/turned")
    assert turned.classes == ("lumen", "background", "membrane")
    found = turned.to_json()
    assert found["dice"] == expected["dice"]
    assert found["class_calibration_error"] == pytest.approx(expected["class_calibration_error"])


def test_two_classes_against_all_are_two(tomo: Tomogram) -> None:
    soft, truth = example()
    two = np.stack([soft[0], soft[1] + soft[2]])
    add_labels(tomo, soft)
    add_labels(tomo, two, "two", ("background", "foreground"))
    add_labels(tomo, truth, "truth")
    found = compared(tomo, "labels/two")
    assert found.classes == ("background", "foreground")
    expected = Agreement.measure(two, (truth > 0).astype(int))
    np.testing.assert_array_equal(found.agreement.confusion, expected.confusion)
    assert found.agreement.foreground_f1 == found.agreement.dice[1]
    merged = evaluate(*comparable(tomo, "labels/net", "labels/two"))
    np.testing.assert_array_equal(merged.agreement.dice, [1, 1])


def test_soft_truth_and_hard_prediction(tomo: Tomogram) -> None:
    soft, truth = example()
    add_labels(tomo, truth)
    add_labels(tomo, soft, "truth")
    hard = compared(tomo)
    expected = Agreement.measure(one_hot(truth), soft)
    np.testing.assert_array_equal(hard.agreement.confusion, expected.confusion)
    np.testing.assert_allclose(hard.agreement.soft_dice, expected.soft_dice)
    found = hard.to_json()
    assert found["cross_entropy"] is found["calibration_error"] is None
    assert "cross-entropy" not in hard.to_text()
    itself = evaluate(*comparable(tomo, "labels/truth", "labels/truth"))
    assert itself.agreement.macro_dice == 1


def test_what_cannot_be_compared_is_refused(tomo: Tomogram) -> None:
    soft, truth = example()
    add_labels(tomo, soft, "net", ("background", "membrane", "nucleus"))
    add_labels(tomo, truth, "truth")
    with pytest.raises(UsageError, match=r"nucleus.*background, membrane, lumen"):
        compared(tomo)
    small = truth[:35, :25, :75]
    with tomo.write(
        "labels/small", dtype="u1", shape=small.shape, downsample="mode", recipe={}
    ) as writer:
        for x in (0, 64):
            writer[0:35, 0:25, x : min(x + 64, 75)] = small[..., x : x + 64]
    with pytest.raises(UsageError, match=r"\(35, 25, 75\) voxels.*\(70, 50, 150\)"):
        compared(tomo, "labels/small")
    with pytest.raises(NotFoundError, match="it has raw, labels/net"):
        compared(tomo, "probs/net")
    add_labels(tomo, np.full(SHAPE, UNKNOWN, np.uint8), "empty")
    with pytest.raises(UsageError, match="no labelled voxel"):
        compared(tomo, "labels/empty")


def test_names_of_products() -> None:
    assert full_name("net", "probs") == "probs/net"
    assert full_name("labels/forest", "probs") == "labels/forest"
    with pytest.raises(UsageError, match="ramps/net"):
        full_name("ramps/net", "probs")
    with pytest.raises(UsageError, match="no product"):
        full_name("other/net", "probs")


# Boundaries

small_volumes = arrays(np.uint8, (4, 5, 6), elements=st.sampled_from([0, 1, 2, UNKNOWN]))


@given(small_volumes, small_volumes)
@settings(deadline=None, max_examples=40)
def test_distances_are_those_of_all_pairs(first: np.ndarray, second: np.ndarray) -> None:
    for index in range(3):
        places = [boundary_of_class(volume, index, UNKNOWN) for volume in (first, second)]
        boundaries = [boundary_voxels(volume, index) for volume in (first, second)]
        for mask, expected in zip(boundaries, places, strict=True):
            np.testing.assert_array_equal(np.argwhere(mask), expected)
        found = symmetric_distances(*boundaries, SPACING)
        np.testing.assert_allclose(np.sort(found), distances_between(*places, SPACING))


def balls(radius_voxels: float, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    """Give a ball of lumen in a membrane 4 voxels thick; z is half as fine as y and x."""
    z, y, x = np.indices(shape) - np.reshape(np.array(shape) // 2, (3, 1, 1, 1))
    distance = np.sqrt((2 * z) ** 2 + y**2 + x**2)
    return np.select([distance < radius_voxels, distance < radius_voxels + 4], [2, 1]).astype("u1")


def test_a_ball_that_is_larger_is_so_far_away(tomo: Tomogram) -> None:
    add_labels(tomo, balls(12))
    add_labels(tomo, balls(16), "truth")
    found = compared(tomo, boundary_memory_bytes=10**12)
    assert found.boundary_level == 0
    assert found.boundaries is not None
    assert found.boundaries[2].mean_angstrom == pytest.approx(40, abs=5)
    assert 40 <= found.boundaries[2].percentile95_angstrom < 50
    assert "boundary Å" in found.to_text()
    assert "boundaries at level 0 of the pyramid" in found.to_text()
    distances = found.to_json()["boundary_angstrom"]
    assert distances["mean"]["lumen"] == found.boundaries[2].mean_angstrom


def test_the_level_is_the_finest_that_fits(tomo: Tomogram, monkeypatch: pytest.MonkeyPatch) -> None:
    add_labels(tomo, balls(12))
    add_labels(tomo, balls(16), "truth")
    monkeypatch.setattr(boundary_module, "resident_memory_bytes", lambda: 10**6)
    pair = comparable(tomo, "labels/net", "labels/truth")
    voxels = np.prod(SHAPE)
    whole_bytes = int(10**6 + 42 * voxels)
    assert boundary_distances(*pair, whole_bytes)[0] == 0
    level, found = boundary_distances(*pair, whole_bytes - 1)
    assert level == 1
    assert found[2].mean_angstrom == pytest.approx(40, abs=10)
    with pytest.raises(MemoryBudgetError, match=r"--memory is 1\.0 MB"):
        boundary_distances(*pair, 10**6)


def test_a_class_without_boundary_has_no_distance(tomo: Tomogram) -> None:
    add_labels(tomo, np.minimum(balls(12), 1))
    add_labels(tomo, balls(16), "truth")
    distances = compared(tomo, boundary_memory_bytes=10**12).to_json()["boundary_angstrom"]
    assert distances["mean"]["lumen"] is distances["percentile95"]["lumen"] is None
    assert distances["mean"]["membrane"] > 0


# Reports


def evaluation(seed: int, n: int = 200, **more: Any) -> Evaluation:
    rng = np.random.default_rng(seed)
    agreement = Agreement.measure(rng.dirichlet(np.ones(3), n).T, rng.integers(0, 3, n))
    return Evaluation(NAMES, agreement, n, is_soft=True, **more)


def test_pooled_is_over_all_voxels() -> None:
    far, near = BoundaryDistance(30.0, 50.0), BoundaryDistance(10.0, 20.0)
    nowhere = BoundaryDistance(float("nan"), float("nan"))
    parts = [
        evaluation(0, boundaries=(far, far, nowhere), boundary_level=1),
        evaluation(1, n=600, boundaries=(near, nowhere, nowhere), boundary_level=2),
    ]
    total = pooled(parts)
    assert total.agreement.n_voxels == total.n_volume_voxels == 800
    confusion = sum(part.agreement.confusion for part in parts)
    np.testing.assert_array_equal(total.agreement.confusion, confusion)
    mean, percentile95, level = (
        total.to_json()["boundary_angstrom"][key] for key in ("mean", "percentile95", "level")
    )
    assert mean == {"background": 20.0, "membrane": 30.0, "lumen": None}
    assert percentile95 == {"background": 35.0, "membrane": 50.0, "lumen": None}
    assert level is None
    assert "level of each" in total.to_text()
    assert pooled([replace(part, boundaries=None) for part in parts]).boundaries is None


def test_everything_reported_is_defined() -> None:
    found = evaluation(0, boundaries=(BoundaryDistance(1, 2),) * 3, boundary_level=0).to_json()
    assert found.keys() - DEFINITIONS.keys() == {"unlabelled_voxels"}
    assert "unlabelled_voxels" in DEFINITIONS["voxels"]
    assert DEFINITIONS.keys() <= found.keys()
    json.dumps(found, allow_nan=False)


def test_the_diagram_has_each_class_where_it_belongs() -> None:
    probabilities = np.repeat([[0.75], [0.25], [0.0]], 1000, axis=1)
    truth = np.repeat([0, 1], 500)
    agreement = Agreement.measure(probabilities, truth)
    table = ClassTable.named(NAMES)
    image = draw_reliability(Evaluation(NAMES, agreement, 1000, is_soft=True), table)
    # 480 pixels from 70 and 40 on: probability to the right, share of the truth upwards.
    for index, (probability, share) in {1: (0.25, 0.5), 2: (0, 0)}.items():
        pixel = image.getpixel((round(70 + 480 * probability), round(40 + 480 * (1 - share))))
        assert pixel == ImageColor.getrgb(table[index].color)
    assert image.getpixel((300, 100)) == (255, 255, 255)


def test_the_verb_prints_writes_and_pools(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram]
) -> None:
    other = add_tomogram(np.ones(SHAPE, np.float32), "ts_002")
    add_tomogram(np.ones((8, 9, 10), np.float32), "ts_003")
    for seed, one in enumerate((tomo, other)):
        soft, truth = example(seed)
        add_labels(one, soft)
        add_labels(one, truth, "truth")
    picture = tomo.collection.path.parent / "r.png"
    words = ("--probs", "labels/net", "--truth", "truth")
    text = run(tomo, *words, "--picture", picture, "--boundary", "-v")
    assert text.exit_code == 0, text.stderr
    assert "all 2 tomograms" in text.stdout
    assert "micro F1 (voxel accuracy)" in text.stdout
    assert "2 TP / (2 TP + FP + FN)" in text.stderr
    with Image.open(picture) as image:
        assert image.format == "PNG"
    single = run(tomo, "ts_002", *words, "--json")
    document = json.loads(single.stdout)
    assert list(document["tomograms"]) == ["ts_002"]
    assert document["pooled"] == document["tomograms"]["ts_002"]
    assert document["definitions"] == DEFINITIONS


@pytest.mark.parametrize(
    ("words", "code", "names"),
    [
        (("--probs", "net", "--truth", "truth"), 2, "has both probs/net and labels/truth"),
        (("ts_001", "--probs", "net", "--truth", "truth"), 2, "it has raw, labels/net"),
        (("--probs", "labels/net", "--truth", "strokes/a"), 2, "no product"),
        (("--probs", "labels/truth", "--truth", "net", "--picture", "r.png"), 2, "is hard"),
        (("--probs", "labels/net", "--truth", "truth", "--picture", "r.jpg"), 73, "r.jpg"),
        (("--probs", "labels/net", "--truth", "truth", "--boundary", "--memory", "x"), 2, "'x'"),
    ],
)
def test_the_verb_refuses(tomo: Tomogram, words: tuple[str, ...], code: int, names: str) -> None:
    soft, truth = example()
    add_labels(tomo, soft)
    add_labels(tomo, truth, "truth")
    result = run(tomo, *words)
    assert (result.exit_code, names in result.stderr) == (code, True), result.stderr


def test_tomograms_that_differ_are_not_pooled(
    tomo: Tomogram, add_tomogram: Callable[..., Tomogram]
) -> None:
    other = add_tomogram(np.ones(SHAPE, np.float32), "ts_002")
    soft, truth = example()
    add_labels(tomo, soft)
    add_labels(other, truth)
    for one in (tomo, other):
        add_labels(one, truth, "truth")
    result = run(tomo, "--probs", "labels/net", "--truth", "truth")
    assert (result.exit_code, "ts_002 is hard" in result.stderr) == (2, True), result.stderr
