"""Pseudo-labels beside scikit-image and scikit-learn, in CPU-seconds of one thread; memory; Dice.

Blocks of the tomogram that ships with otzi and of a phantom, each labelled by forests of 100 trees
that learned the same strokes, the implementations taking turns. Scikit-image gives 25 channels, at
sigma 0.5 to 8; otzi reads the block with its halo and gives all 61. Memory is that of `pseudolabel`
on noise with two workers, each in a process of its own; its forests are small, as their size hardly
counts. Dice is that of hard labels: of phantoms, and, where a folder with the FIB-25 files is the
argument or ``OTZI_FIBSEM``, of real membranes that were stroked on slices below the ones judged.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from otzi.box import Box, tile
from otzi.classes import DEFAULT_CLASSES, ClassTable
from otzi.metrics import Agreement
from otzi.mrc import read_header, read_window
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import StrokeForest
from otzi.pseudo.lazy import label_block
from otzi.pseudo.sample import sample
from otzi.stroke_voxels import StrokeVoxels, rasterise
from otzi.strokes import read_strokes
from otzi_pipelines.demo_data import strokes_file, unpack_tomogram
from otzi_pipelines.phantom.make import make_phantoms
from otzi_pipelines.phantom.settings import PhantomSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROUNDS = 2
BLOCK = (128, 128, 128)
REAL_BLOCK = Box((0, 90, 90), (96, 218, 218))
PHANTOM_BLOCK = Box((0, 16, 16), (128, 144, 144))
PHANTOM = (128, 160, 160)
WHOLE_VOLUME = (300, 1440, 1024)
EARLY_EXITS = ((20, 0.95), (10, 0.999))
BANK = FeatureBank()
FIBSEM_SPLIT = 125
FIBSEM_SLICES = (12, 37, 62, 87, 112)
MEMORY = """
import sys
from otzi.box import tile
from otzi.collection import create_collection
from otzi_pipelines.label.pseudolabel import pseudolabel
import numpy as np, numba, sklearn.ensemble
def peak():  # of this program, not of the one that started it, as getrusage has it
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
imported = peak()
shape = (int(sys.argv[2]),) * 3
rng = np.random.default_rng(0)
tomo = create_collection(sys.argv[1]).add("noise")
with tomo.write("raw", dtype="i1", shape=shape, spacing_angstrom=(10,) * 3, recipe={}) as writer:
    for box in tile(shape, (128, 128, 128)):
        writer[box.slices] = rng.integers(-99, 99, box.shape, np.int8)
with tomo.write("strokes", dtype="u1", downsample="mode", recipe={}, parents=("raw",)) as writer:
    for box in tile(shape, (128, 128, 128)):
        labels = np.zeros(box.shape, np.uint8)
        labels[64, 20], labels[64, 60] = (1, 2) if box.start == (0, 0, 0) else (0, 0)
        writer[box.slices] = labels
pseudolabel(tomo, "forest", n_trees=4, workers=2, memory_bytes=1500 * 10**6)
print(imported, peak())
"""


def cpu_seconds(compute: Callable[[], object]) -> float:
    start = time.process_time()
    compute()
    return time.process_time() - start


def best_of(computations: dict[str, Callable[[], object]]) -> dict[str, float]:
    best = dict.fromkeys(computations, float("inf"))
    for _ in range(ROUNDS):
        for name, compute in computations.items():
            best[name] = min(best[name], cpu_seconds(compute))
    return best


def learn(volume: NDArray[Any], voxels: StrokeVoxels, classes: ClassTable) -> StrokeForest:
    samples = sample(BANK, lambda box: volume[box.slices], voxels)
    return StrokeForest.fit(samples, voxels.classes, bank=BANK, classes=classes.names)


def labelled(
    volume: NDArray[Any], inner: Box, forest: StrokeForest, early_exit: Any = None
) -> tuple[NDArray[np.float32], int]:
    z, y, x = volume.shape
    held = inner.grow(BANK.halo_voxels).clip((z, y, x))
    return label_block(volume[held.slices], held, inner, forest, early_exit)


def agreement(
    volume: NDArray[Any], truth: NDArray[Any], forest: StrokeForest, first_plane: int = 0
) -> Agreement:
    """Compare the labels with a truth, from a plane on."""
    z, y, x = volume.shape
    total = Agreement.none(len(forest.classes))
    for box in tile((z, y, x), BLOCK):
        inner = box.intersect(Box((first_plane, 0, 0), (z, y, x)))
        if inner.n_voxels:
            probabilities, _ = labelled(volume, inner, forest)
            total = total + Agreement.measure(probabilities, truth[inner.slices])
    return total


def dice_line(classes: tuple[str, ...], found: Agreement) -> str:
    return ", ".join(f"{name} {dice:.3f}" for name, dice in zip(classes, found.dice, strict=True))


# The parts


def phantoms(folder: str) -> list[tuple[NDArray[Any], NDArray[Any], StrokeVoxels]]:
    """Give density, truth and strokes of two volumes."""
    found = []
    for files in make_phantoms(folder, PhantomSettings(size=PHANTOM), count=2):
        volumes = [
            read_window(files[kind], read_header(files[kind]), Box.whole(PHANTOM))
            for kind in ("tomogram", "labels")
        ]
        strokes = read_strokes(Path(files["strokes"])).strokes
        voxels = rasterise(strokes, DEFAULT_CLASSES, PHANTOM)
        found.append((volumes[0], volumes[1].astype(np.int64) - 1, voxels))
    return found


def real(folder: str) -> tuple[NDArray[Any], StrokeVoxels, ClassTable]:
    """Give density and strokes of the tomogram that ships with otzi."""
    file = unpack_tomogram(Path(folder))
    header = read_header(file)
    strokes = read_strokes(strokes_file())
    classes = ClassTable.named(strokes.classes)
    voxels = rasterise(strokes.strokes, classes, header.shape)
    return read_window(file, header, Box.whole(header.shape)), voxels, classes


def bench_forest(
    forest: StrokeForest, voxels: StrokeVoxels, volume: NDArray[Any], inner: Box
) -> None:
    samples = sample(BANK, lambda box: volume[box.slices], voxels)
    peer = RandomForestClassifier(100, max_features="sqrt", n_jobs=1, random_state=0)
    peer.fit(samples, voxels.classes)
    planes = Box(inner.start, (inner.start[0] + 16, *inner.stop[1:]))
    z, y, x = volume.shape
    held = planes.grow(BANK.halo_voxels).clip((z, y, x))
    ((_, channels),) = BANK.slabs(volume[held.slices], held, planes)
    features = np.ascontiguousarray(channels.reshape(len(BANK.names), -1))
    rows = np.ascontiguousarray(features.T)
    seconds = best_of(
        {"otzi": lambda: forest.predict(features), "sklearn": lambda: peer.predict_proba(rows)}
    )
    expected = np.zeros((len(forest.classes), len(rows)))
    expected[peer.classes_] = peer.predict_proba(rows).T
    difference = abs(forest.predict(features) - expected).max()
    print(f"  forest of {len(forest.roots)} trees, {len(forest.child):,} nodes")
    for name, s in seconds.items():
        print(f"    {name:<8}{len(rows) / 1e6 / s:7.3f} Mvoxel/CPU-s")
    ratio = seconds["sklearn"] / seconds["otzi"]
    print(f"    otzi is {ratio:.2f} times as fast (goal 1.4); largest difference {difference:.1e}")


def bench_together(
    forest: StrokeForest, voxels: StrokeVoxels, volume: NDArray[Any], inner: Box
) -> None:
    z, y, x = voxels.coordinates.T
    learned = multiscale_basic_features(volume.astype(np.float32), sigma_min=0.5, sigma_max=8)
    peer = RandomForestClassifier(100, max_features="sqrt", n_jobs=1, random_state=0)
    peer.fit(learned[z, y, x], voxels.classes)
    del learned
    block = volume[inner.slices].astype(np.float32)

    def by_peers() -> None:
        features = multiscale_basic_features(block, sigma_min=0.5, sigma_max=8)
        for plane in features:
            peer.predict_proba(plane.reshape(-1, plane.shape[-1]))

    computations: dict[str, Callable[[], object]] = {"scikit-image + scikit-learn": by_peers}
    computations["otzi, exact"] = lambda: labelled(volume, inner, forest)
    for early_exit in EARLY_EXITS:
        name = f"otzi, early exit {early_exit[0]}, {early_exit[1]}"
        computations[name] = lambda e=early_exit: labelled(volume, inner, forest, e)  # type: ignore[misc]
    seconds = best_of(computations)
    exact, _ = labelled(volume, inner, forest)
    print(f"  features and forest, {' × '.join(map(str, inner.shape))} voxels")
    for name, s in seconds.items():
        ratio = seconds["scikit-image + scikit-learn"] / s
        print(f"    {name:<30}{inner.n_voxels / 1e6 / s:7.3f} Mvoxel/CPU-s  × {ratio:.1f}")
    for early_exit in EARLY_EXITS:
        found, n_continued = labelled(volume, inner, forest, early_exit)
        change, share = abs(found - exact), n_continued / inner.n_voxels
        print(
            f"    early exit {early_exit[0]}, {early_exit[1]}: {share:.0%} of the voxels see all "
            f"trees, |Δp| mean {change.mean():.4f}, largest {change.max():.2f}"
        )
    minutes = np.prod(WHOLE_VOLUME) / inner.n_voxels * seconds["otzi, exact"] / 60
    size = " × ".join(map(str, WHOLE_VOLUME))
    print(f"    from this, {size} voxels take {minutes:.0f} minutes of one core, exact")


def bench_memory() -> None:
    print("peak memory of pseudolabel, two workers, above that after the imports")
    for side in (256, 384, 512):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", MEMORY, f"{folder}/c", str(side)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
        imported, peak = map(int, run.stdout.split())
        print(f"  {side}³: {(peak - imported) / 1e6:.0f} MB ({peak / 1e6:.0f} MB in all)")


def bench_phantoms(
    volumes: list[tuple[NDArray[Any], NDArray[Any], StrokeVoxels]], forest: StrokeForest
) -> None:
    print("Dice on phantoms, a forest from the strokes of one volume")
    for name, (volume, truth, _) in zip(("that volume", "another one"), volumes, strict=True):
        print(f"  {name}: {dice_line(forest.classes, agreement(volume, truth, forest))}")


def bench_fibsem(folder: Path | None) -> None:
    files = ("fib25_sample2_10nm_raw_u8.npz", "fib25_sample2_groundtruth_u16.npz")
    if folder is None or not all((folder / file).is_file() for file in files):
        print("FIB-25 is not here: give its folder as argument or in OTZI_FIBSEM")
        return
    with np.load(folder / files[0]) as raw, np.load(folder / files[1]) as labels:
        volume, bodies = raw["raw"], labels["labels"]
    truth = is_membrane(bodies).astype(np.int64)
    classes = ClassTable.named(("background", "membrane"))
    voxels = spots(truth, np.random.default_rng(0))
    counts = voxels.counts(2)
    forest = learn(volume, voxels, classes)
    found = agreement(volume, truth, forest, FIBSEM_SPLIT)
    print(
        f"Dice on FIB-25, z from {FIBSEM_SPLIT}, from {counts[0]:,} voxels of interior and "
        f"{counts[1]:,} of membrane on {len(FIBSEM_SLICES)} slices below"
    )
    print(f"  {dice_line(('interior', 'membrane'), found)}")


def is_membrane(bodies: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell where a neighbour along z, y or x has another label."""
    found = np.zeros(bodies.shape, np.bool_)
    for axis in range(3):
        rows, mask = np.moveaxis(bodies, axis, 0), np.moveaxis(found, axis, 0)
        change = rows[1:] != rows[:-1]
        mask[1:] |= change
        mask[:-1] |= change
    return found


def spots(truth: NDArray[np.int64], rng: np.random.Generator) -> StrokeVoxels:
    """Label what lies within 5 voxels of 8 places of each class on some slices."""
    n_y, n_x = truth.shape[1:]
    y, x = np.ogrid[:n_y, :n_x]
    drawn = np.zeros(truth.shape, np.uint8)
    for z in FIBSEM_SLICES:
        for label in (0, 1):
            places = np.argwhere(truth[z] == label)
            for centre_y, centre_x in rng.choice(places, 8, replace=False):
                near = (y - centre_y) ** 2 + (x - centre_x) ** 2 <= 25
                drawn[z][near & (truth[z] == label)] = label + 1
    whole = Box.whole(truth.shape)  # type: ignore[arg-type]
    return StrokeVoxels.from_labels(whole.shape, [(whole, drawn)])


def main() -> None:
    named = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("OTZI_FIBSEM")
    bench_memory()
    with tempfile.TemporaryDirectory() as folder:
        volume, voxels, classes = real(folder)
        volumes = phantoms(folder)
    print("the tomogram that ships with otzi")
    forest = learn(volume, voxels, classes)
    bench_forest(forest, voxels, volume, REAL_BLOCK)
    bench_together(forest, voxels, volume, REAL_BLOCK)
    print("a phantom")
    volume, _, voxels = volumes[0]
    forest = learn(volume, voxels, DEFAULT_CLASSES)
    bench_forest(forest, voxels, volume, PHANTOM_BLOCK)
    bench_together(forest, voxels, volume, PHANTOM_BLOCK)
    bench_phantoms(volumes, forest)
    bench_fibsem(named if named is None else Path(named))


if __name__ == "__main__":
    main()
