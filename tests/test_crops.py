"""Crops: boxes of what is stored, from everywhere in the region and from nowhere else."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelled import UNKNOWN, add_labels, one_hot, shells
from otzi.box import Box
from otzi.errors import ConfigurationError
from otzi.normalise import Normalisation
from otzi_pipelines.train.crops import (
    Crop,
    CropSource,
    LabelledVolume,
    batches,
    covering_boxes,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SHAPE = (40, 70, 50)
WHOLE = Box.whole(SHAPE)


@pytest.fixture
def tomo(add_tomogram: Callable[..., Tomogram]) -> Tomogram:
    density, labels = shells(SHAPE)
    tomo = add_tomogram(density)
    add_labels(tomo, labels)
    return tomo


def source(tomo: Tomogram, crop: int = 16, region: Box = WHOLE, **settings: object) -> CropSource:
    volume = LabelledVolume(tomo, "net")
    return CropSource([volume], [region], crop, **({"seed": 0, "grid_voxels": 8} | settings))


def starts(source: CropSource, n: int) -> list[tuple[int, int, int]]:
    return [source.place(i)[1].start for i in range(n)]


def random_soft(shape: tuple[int, ...]) -> np.ndarray:
    soft = np.random.default_rng(3).random((3, *shape))
    upto = np.rint(255 * np.cumsum(soft / soft.sum(0), axis=0))
    return np.diff(upto, axis=0, prepend=0).astype(np.uint8)


@pytest.mark.parametrize("kind", ["hard", "uint8", "float16"])
def test_crops_are_boxes_of_the_stored_arrays(tomo: Tomogram, kind: str) -> None:
    labels = shells(SHAPE)[1]
    if kind != "hard":
        soft = random_soft(SHAPE)
        add_labels(tomo, soft if kind == "uint8" else (soft / 255).astype(np.float16))
    density = Normalisation.of(tomo.raw)(tomo.raw.values)
    target = one_hot(labels) if kind == "hard" else tomo.labels("net").values
    drawn = source(tomo, turns=False)
    for i in range(20):
        _, box = drawn.place(i)
        crop = drawn[i]
        np.testing.assert_array_equal(crop.density, density[box.slices])
        np.testing.assert_array_equal(crop.target, target[(slice(None), *box.slices)])
        assert crop.density.dtype == crop.target.dtype == np.float32
        assert crop.density.shape == (16, 16, 16)


def test_stored_steps_become_true_values(tomo: Tomogram) -> None:
    quantisation = {"scale": 0.25, "offset": 3.0}
    statistics = tomo.attributes("raw")["statistics"]
    stored = shells(SHAPE)[0].clip(-128, 127).astype(np.int8)
    with tomo.write("raw", dtype="int8", shape=SHAPE, recipe={"made": "again"}) as writer:
        writer[0:40, 0:70, 0:50] = stored
        writer.attributes.update(statistics=statistics, quantisation=quantisation)
    add_labels(tomo, shells(SHAPE)[1])
    normalise = Normalisation.from_statistics(statistics)
    drawn = source(tomo, turns=False)
    _, box = drawn.place(0)
    np.testing.assert_array_equal(drawn[0].density, normalise(stored * 0.25 + 3.0)[box.slices])


@pytest.mark.parametrize("depth", [1, 2, 5, 15])
def test_a_thin_volume_is_reflected_and_unknown_beyond(
    add_tomogram: Callable[..., Tomogram], depth: int
) -> None:
    density, labels = shells((depth, 30, 20))
    tomo = add_tomogram(density)
    add_labels(tomo, labels)
    crop = source(tomo, region=Box.whole((depth, 30, 20)), turns=False)[0]
    assert crop.density.shape == (16, 16, 16)
    period = max(1, 2 * (depth - 1))
    for z in range(16):
        mirrored = min(z % period, period - z % period)
        np.testing.assert_array_equal(crop.density[z], crop.density[mirrored])
    assert (crop.target[:, :depth].sum(0) == 1).all()
    assert not crop.target[:, depth:].any()


@given(st.integers(0, 30), st.integers(1, 40), st.integers(1, 20), st.data())
def test_every_origin_is_drawn_and_no_other(
    start: int, length: int, crop: int, data: st.DataObject
) -> None:
    """On every axis: the start, the multiples of the grid, and the last place that fits."""
    grid = data.draw(st.integers(1, crop))
    stop = start + length
    volume = Everywhere((1, 1, stop))
    region = Box((0, 0, start), (1, 1, stop))
    drawn = CropSource([volume], [region], crop, seed=0, grid_voxels=grid)
    found = {x for _, _, x in starts(drawn, 300)}
    last = max(start, stop - crop)
    multiples = {x for x in range(start, last) if x % grid == 0}
    assert found == {start, last} | multiples


class Everywhere:
    """What the source asks of a labelled volume of one class, without data."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.id, self.shape, self.classes = "ts", shape, ("background", "membrane")
        self.content = np.zeros((2, *(-(-n // 32) for n in shape)))
        self.content[0] = 1


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_no_crop_leaves_its_region(tomo: Tomogram, balance: float) -> None:
    region = Box((3, 11, 0), (37, 70, 41))
    drawn = source(tomo, region=region, balance=balance)
    boxes = [drawn.place(i)[1] for i in range(2000)]
    assert all(box.intersect(region) == box for box in boxes)
    assert {box.shape for box in boxes} == {(16, 16, 16)}
    reached = np.zeros(SHAPE, bool)
    for box in boxes:
        reached[box.slices] = True
    assert reached[region.slices].all()


def test_rare_classes_are_drawn_as_often_as_common_ones(tomo: Tomogram) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[34:38, 66:69, 2:6] = 2
    add_labels(tomo, labels)

    def share(balance: float) -> float:
        drawn = source(tomo, crop=32, balance=balance, turns=False)
        assert drawn.classes_present == {0, 2}
        return float(np.mean([drawn[i].target[2].any() for i in range(60)]))

    assert share(0.0) < 0.25
    assert 0.35 < share(1.0) < 0.65


def test_content_is_counted_in_blocks(tomo: Tomogram) -> None:
    labels = shells(SHAPE)[1]
    labels[:5] = UNKNOWN
    add_labels(tomo, labels)
    # 70 voxels have two levels: a block of 32 is one of 16 at half the resolution.
    volume = LabelledVolume(tomo, "net")
    level = tomo.array("labels/net", 1)[...]
    assert volume.content.shape == (3, 2, 3, 2)
    for c, z, y, x in product(range(3), range(2), range(3), range(2)):
        block = level[16 * z : 16 * z + 16, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
        assert volume.content[c, z, y, x] == (block == c).sum()


def test_a_crop_follows_from_seed_and_index(tomo: Tomogram) -> None:
    first, second = source(tomo), source(tomo)
    late = second[9]
    early = [first[i] for i in range(10)]
    np.testing.assert_array_equal(early[9].density, late.density)
    np.testing.assert_array_equal(early[9].target, late.target)
    assert starts(first, 40) != starts(source(tomo, seed=1), 40)


def test_batches_are_the_crops_in_order_wherever_they_begin(tomo: Tomogram) -> None:
    drawn = source(tomo)
    found = list(batches(drawn, range(2, 7), 3))
    assert len(found) == 5
    for step, (density, target) in zip(range(2, 7), found, strict=True):
        assert density.shape == (3, 1, 16, 16, 16)
        assert target.shape == (3, 3, 16, 16, 16)
        for i in range(3):
            crop = drawn[3 * step + i]
            np.testing.assert_array_equal(density[i, 0], crop.density)
            np.testing.assert_array_equal(target[i], crop.target)


def test_density_and_labels_turn_together(tomo: Tomogram) -> None:
    density = tomo.raw.values
    add_labels(tomo, (density > 0).astype(np.uint8))
    above = Normalisation.of(tomo.raw)(np.zeros(1, np.float32))[0]
    turned, plain = source(tomo), source(tomo, turns=False)
    seen = set()
    for i in range(12):
        crop, as_stored = turned[i], plain[i]
        np.testing.assert_array_equal(crop.target[1] == 1, crop.density > above)
        np.testing.assert_array_equal(np.sort(crop.density, None), np.sort(as_stored.density, None))
        seen.add(_turn(crop, as_stored))
    assert len(seen) > 4


def _turn(crop: Crop, as_stored: Crop) -> tuple[object, int]:
    for flips in [tuple(a for a in range(3) if bits >> a & 1) for bits in range(8)]:
        for quarters in range(2):
            image = np.rot90(np.flip(as_stored.density, flips), quarters, axes=(1, 2))
            if np.array_equal(image, crop.density):
                return flips, quarters
    raise AssertionError("no flip and quarter about z gives this crop")


@given(
    st.tuples(*[st.integers(1, 60)] * 3).filter(lambda shape: max(shape) > 1), st.floats(0.01, 0.99)
)
def test_the_two_parts_are_the_whole_and_meet_nowhere(
    shape: tuple[int, int, int], held_out: float
) -> None:
    learn, rest = split(shape, held_out)
    assert learn.n_voxels + rest.n_voxels == np.prod(shape)
    assert learn.intersect(rest).n_voxels == 0
    assert min(learn.n_voxels, rest.n_voxels) > 0
    longest = int(np.argmax(shape))
    assert abs(rest.shape[longest] - held_out * shape[longest]) <= 1


def test_one_voxel_cannot_be_split() -> None:
    with pytest.raises(ConfigurationError, match=r"\(1, 1, 1\) voxels cannot be cut"):
        split((1, 1, 1), 0.5)


@given(st.tuples(*[st.integers(1, 20)] * 3), st.tuples(*[st.integers(0, 9)] * 3), st.integers(4, 9))
def test_boxes_cover_a_region(
    shape: tuple[int, int, int], start: tuple[int, int, int], crop: int
) -> None:
    region = Box.whole(shape).shift(start)
    boxes = covering_boxes(region, crop)
    seen = np.zeros(shape, int)
    for box in boxes:
        assert box.shape == tuple(min(n, crop) for n in shape)
        seen[box.within(region)] += 1
    assert seen.min() == 1
    assert len(boxes) == np.prod([-(-n // crop) for n in shape])


def test_unlabelled_voxels_are_all_zero(tomo: Tomogram) -> None:
    labels = np.full(SHAPE, UNKNOWN, np.uint8)
    labels[:, :35] = shells(SHAPE)[1][:, :35]
    add_labels(tomo, labels)
    drawn = source(tomo, turns=False, balance=0.0)
    for i in range(8):
        _, box = drawn.place(i)
        known = drawn[i].target.sum(0)
        np.testing.assert_array_equal(known, labels[box.slices] != UNKNOWN)


@pytest.mark.parametrize("labels", [np.ones(SHAPE, np.uint8), random_soft(SHAPE)[:2]])
def test_two_classes_of_three(tomo: Tomogram, labels: np.ndarray) -> None:
    add_labels(tomo, labels, classes=("background", "foreground"))
    assert LabelledVolume(tomo, "net").classes == ("background", "foreground")
    assert source(tomo)[0].target.shape[0] == 2


def test_what_cannot_be_drawn_from_is_refused(tomo: Tomogram) -> None:
    with pytest.raises(ConfigurationError, match="grid_voxels = 17 must be 1 to crop_voxels, 16"):
        source(tomo, grid_voxels=17)
    with pytest.raises(ConfigurationError, match="no tomogram"):
        CropSource([], [], 16, seed=0, grid_voxels=8)
    labels = np.full(SHAPE, UNKNOWN, np.uint8)
    labels[:, 60:] = 1
    add_labels(tomo, labels)
    with pytest.raises(ConfigurationError, match=r"nothing is labelled .* ts_001"):
        source(tomo, region=Box((0, 0, 0), (40, 32, 50)))
