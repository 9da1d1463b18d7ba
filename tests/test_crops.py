"""Crops: boxes of what is stored, from everywhere in the region and from nowhere else."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelled import UNKNOWN, add_labels, one_hot, shells
from otzi.box import Box
from otzi.errors import ConfigurationError
from otzi.normalise import MIN_MAX, Normalisation
from otzi_pipelines.train.batch import density_of, target_of
from otzi_pipelines.train.crops import CropSource, LabelledVolume, covering_boxes, cut
from otzi_pipelines.train.feed import crops_of_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram
    from otzi_pipelines.train.crops import Crop

CPU = torch.device("cpu")
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


def density_in(crop: Crop) -> np.ndarray:
    return density_of(crop, CPU).numpy()


def target_in(crop: Crop, *, hard: bool = False) -> np.ndarray:
    return target_of(crop, CPU, hard=hard).numpy()


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
    drawn = source(tomo)
    for i in range(20):
        _, box = drawn.place(i)
        crop = drawn[i]
        np.testing.assert_array_equal(density_in(crop), density[box.slices])
        np.testing.assert_array_equal(target_in(crop), target[(slice(None), *box.slices)])
        assert density_in(crop).dtype == target_in(crop).dtype == np.float32
        assert (crop.density.shape, crop.density.dtype) == ((16, 16, 16), tomo.raw.dtype)
        assert str(crop).startswith(f"ts_001, z {box.start[0]} to {box.stop[0]}, y ")


def test_stored_steps_become_true_values(tomo: Tomogram) -> None:
    quantisation = {"scale": 0.25, "offset": 3.0}
    statistics = tomo.attributes("raw")["statistics"]
    stored = shells(SHAPE)[0].clip(-128, 127).astype(np.int8)
    with tomo.write("raw", dtype="int8", shape=SHAPE, recipe={"made": "again"}) as writer:
        writer[0:40, 0:70, 0:50] = stored
        writer.attributes.update(statistics=statistics, quantisation=quantisation)
    add_labels(tomo, shells(SHAPE)[1])
    normalise = Normalisation.from_statistics(statistics)
    drawn = source(tomo)
    _, box = drawn.place(0)
    expected = normalise(stored * 0.25 + 3.0)[box.slices]
    np.testing.assert_allclose(density_in(drawn[0]), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_crop_may_be_looked_at_twice(add_tomogram: Callable[..., Tomogram], dtype: str) -> None:
    density, labels = shells(SHAPE)
    tomo = add_tomogram(density.astype(dtype))
    add_labels(tomo, labels)
    crop = source(tomo)[0]
    stored = crop.density.copy()
    first = density_in(crop).copy()
    np.testing.assert_array_equal(density_in(crop), first)
    np.testing.assert_array_equal(crop.density, stored)


def test_published_networks_see_the_range_of_the_volume(tomo: Tomogram) -> None:
    values = tomo.raw.values.astype(np.float32)
    crop = LabelledVolume(tomo, "net", MIN_MAX).read(Box((0, 0, 0), (16, 16, 16)), 16)
    expected = (values - values.min()) / (values.max() - values.min())
    np.testing.assert_allclose(density_in(crop), expected[:16, :16, :16], atol=1e-6)


def test_of_hard_targets_the_most_probable_class_is_all(tomo: Tomogram) -> None:
    soft = random_soft(SHAPE)
    soft[:, :20] = 0
    add_labels(tomo, soft)
    found = target_in(source(tomo, balance=0.0)[0], hard=True)
    _, box = source(tomo, balance=0.0).place(0)
    stored = soft[(slice(None), *box.slices)]
    known = stored.any(0)
    np.testing.assert_array_equal(found.argmax(0)[known], stored.argmax(0)[known])
    np.testing.assert_array_equal(found.sum(0), known)


@pytest.mark.parametrize("depth", [1, 2, 5, 15])
def test_a_thin_volume_is_reflected_and_unknown_beyond(
    add_tomogram: Callable[..., Tomogram], depth: int
) -> None:
    density, labels = shells((depth, 30, 20))
    tomo = add_tomogram(density)
    add_labels(tomo, labels)
    crop = source(tomo, region=Box.whole((depth, 30, 20)))[0]
    target = target_in(crop)
    assert crop.density.shape == (16, 16, 16)
    period = max(1, 2 * (depth - 1))
    for z in range(16):
        mirrored = min(z % period, period - z % period)
        np.testing.assert_array_equal(crop.density[z], crop.density[mirrored])
    assert (target[:, :depth].sum(0) == 1).all()
    assert not target[:, depth:].any()


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
        drawn = source(tomo, crop=32, balance=balance)
        assert drawn.classes_present == {0, 2}
        return float(np.mean([(drawn[i].labels == 2).any() for i in range(60)]))

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
    np.testing.assert_array_equal(early[9].labels, late.labels)
    assert starts(first, 40) != starts(source(tomo, seed=1), 40)


def test_steps_have_their_crops_wherever_they_begin(tomo: Tomogram) -> None:
    drawn = source(tomo)
    indices = [range(3 * step, 3 * step + 3) for step in range(2, 7)]
    found = list(crops_of_steps(drawn, indices))
    assert [len(crops) for crops in found] == [3] * 5
    for of_step, crops in zip(indices, found, strict=True):
        for i, crop in zip(of_step, crops, strict=True):
            np.testing.assert_array_equal(crop.density, drawn[i].density)
            np.testing.assert_array_equal(crop.labels, drawn[i].labels)


def test_no_more_than_three_steps_are_in_memory() -> None:
    asked = []

    class Counting:
        def __getitem__(self, index: int) -> int:
            asked.append(index)
            return index

    fed = crops_of_steps(Counting(), [[2 * step, 2 * step + 1] for step in range(50)])
    assert next(fed) == [0, 1]
    fed.close()
    assert set(asked) <= set(range(6))


def test_an_error_of_a_reader_is_raised_where_its_step_is() -> None:
    class Broken:
        def __getitem__(self, index: int) -> int:
            if index == 1:
                raise OSError("the disk is gone")
            return index

    fed = crops_of_steps(Broken(), [[0], [1], [2]])
    assert next(fed) == [0]
    with pytest.raises(OSError, match="the disk is gone"):
        next(fed)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"shape": (40, 70, 48)}, r"net of ts_001 has \(40, 70, 48\) voxels .* label it again"),
        ({"spacing_angstrom": (20.0, 10.0, 9.0)}, r"has \(20.0, 10.0, 9.0\) Å a voxel"),
    ],
)
def test_labels_of_another_grid_are_refused(
    tomo: Tomogram, changes: dict[str, Any], names: str
) -> None:
    shape = changes.get("shape", SHAPE)
    with tomo.write(
        "labels/net", dtype="uint8", downsample="mode", recipe={"made": "by a test"}, **changes
    ) as writer:
        writer[0 : shape[0], 0 : shape[1], 0 : shape[2]] = np.ones(shape, np.uint8)
    with pytest.raises(ConfigurationError, match=names):
        LabelledVolume(tomo, "net")


@given(
    st.tuples(*[st.integers(1, 60)] * 3).filter(lambda shape: max(shape) > 1), st.floats(0.01, 0.99)
)
def test_the_two_parts_are_the_whole_and_meet_nowhere(
    shape: tuple[int, int, int], held_out: float
) -> None:
    learn, rest = cut(shape, held_out)
    assert learn.n_voxels + rest.n_voxels == np.prod(shape)
    assert learn.intersect(rest).n_voxels == 0
    assert min(learn.n_voxels, rest.n_voxels) > 0
    longest = int(np.argmax(shape))
    assert abs(rest.shape[longest] - held_out * shape[longest]) <= 1


def test_one_voxel_cannot_be_split() -> None:
    with pytest.raises(ConfigurationError, match=r"\(1, 1, 1\) voxels cannot be cut"):
        cut((1, 1, 1), 0.5)


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
    drawn = source(tomo, balance=0.0)
    for i in range(8):
        _, box = drawn.place(i)
        known = target_in(drawn[i]).sum(0)
        np.testing.assert_array_equal(known, labels[box.slices] != UNKNOWN)


@pytest.mark.parametrize("labels", [np.ones(SHAPE, np.uint8), random_soft(SHAPE)[:2]])
def test_two_classes_of_three(tomo: Tomogram, labels: np.ndarray) -> None:
    add_labels(tomo, labels, classes=("background", "foreground"))
    assert LabelledVolume(tomo, "net").classes == ("background", "foreground")
    assert len(target_in(source(tomo)[0])) == 2


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
