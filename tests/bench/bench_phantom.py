"""A few strokes carried to volumes that nobody labelled: the forest, and the network it teaches.

Six phantoms, truth known. Strokes on three of them, about half an hour's work each, make
pseudo-labels; a network learns these as `phantom.toml` says, and labels the other three. So does a
forest of the strokes of all three. Grey values drift from volume to volume, which flatters the
network: another forest sees volumes that are normalised as for the network. Everything on the
processor, from the first voxel on. A network that learns the truth instead shows what is left to
gain.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from otzi.collection import create_collection
from otzi.events import Noted
from otzi.memory import format_bytes, peak_memory_bytes, usable_cores
from otzi.metrics import Agreement
from otzi.networks.weights import load_model
from otzi.normalise import Normalisation
from otzi.pseudo.bank import FeatureBank
from otzi.pseudo.forest import StrokeForest
from otzi.pseudo.lazy import pseudo_labels
from otzi.pseudo.sample import sample
from otzi.settings import load_settings
from otzi.split import Split, write_split
from otzi_pipelines.import_labels import import_labels
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.label.pseudolabel import pseudolabel
from otzi_pipelines.label.stroke_import import import_strokes, stroke_voxels
from otzi_pipelines.phantom.make import make_phantoms
from otzi_pipelines.phantom.settings import PhantomSettings, StrokeSettings
from otzi_pipelines.segment.segmentation import segment
from otzi_pipelines.train.settings import TrainSettings
from otzi_pipelines.train.training import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import xarray as xr

    from otzi.box import Box
    from otzi.collection import Collection
    from otzi.events import Event
    from otzi.tomogram import Tomogram

    Pair = tuple[np.ndarray, Tomogram]

PHANTOMS = PhantomSettings(
    size=(96, 128, 128),
    voxel_size_angstrom=12.5,
    snr=1.0,
    strokes=StrokeSettings(slices=4, per_class=6),
)
LABELLED = 3
RECIPE = Path(__file__).with_name("phantom.toml")
TILE, OVERLAP = 64, 32
GAIN = 0.15
MOST_MINUTES = 30


def tell(event: Event) -> None:
    if isinstance(event, Noted):
        print(f"    {event.message}", flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    begun, worked = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - begun, time.process_time() - worked
    print(f"  {wall:7.1f} s, {cpu:7.1f} s of processor time  {what}", flush=True)


def make_collection(folder: Path) -> tuple[Collection, list[Tomogram], list[Tomogram]]:
    """Give a collection, its tomograms that have strokes, and those that nobody labelled."""
    with timed(f"{2 * LABELLED} phantoms of {' × '.join(map(str, PHANTOMS.size))} voxels"):
        made = make_phantoms(folder / "phantoms", PHANTOMS, count=2 * LABELLED)
    col = create_collection(folder / "c")
    with timed("ingest, truth and strokes"):
        ingest(col, [Path(files["tomogram"]) for files in made])
        tomograms = [col[files["id"]] for files in made]
        for tomo, files in zip(tomograms, made, strict=True):
            import_labels(tomo, files["labels"], "truth")
        known, unseen = tomograms[:LABELLED], tomograms[LABELLED:]
        for tomo, files in zip(known, made, strict=False):
            import_strokes(tomo, Path(files["strokes"]))
    split = Split({}).moved((tomo.id for tomo in known), "train")
    write_split(col, split.moved((tomo.id for tomo in unseen), "test"))
    return col, known, unseen


def as_stored(tomo: Tomogram) -> xr.DataArray:
    """Give ``(z, y, x)``, lazy, as a forest of one volume sees it."""
    return tomo.raw


def normalised(tomo: Tomogram) -> xr.DataArray:
    """Give ``(z, y, x)`` float32, lazy, as a network sees it."""
    way = Normalisation.of(tomo.raw)
    return tomo.raw.copy(data=tomo.raw.data.map_blocks(way, dtype=np.float32))


def by_forest(
    density: Callable[[Tomogram], xr.DataArray],
    known: Sequence[Tomogram],
    unseen: Sequence[Tomogram],
) -> list[Pair]:
    """Give what one forest, of the strokes of all known volumes, finds in others."""
    bank = FeatureBank()
    samples, classes = [], []
    for tomo in known:
        values, voxels = density(tomo).values, stroke_voxels(tomo)

        def read(box: Box, values: np.ndarray = values) -> np.ndarray:
            return values[box.slices]

        samples.append(sample(bank, read, voxels, workers=usable_cores()))
        classes.append(voxels.classes)
    forest = StrokeForest.fit(
        np.concatenate(samples),
        np.concatenate(classes),
        bank=bank,
        classes=known[0].classes.names,
        workers=usable_cores(),
    )
    return [(pseudo_labels(density(tomo), bank, forest).values, tomo) for tomo in unseen]


def by_network(
    col: Collection, labels: str, model: Path, steps: int | None, unseen: Sequence[Tomogram]
) -> list[Pair]:
    """Give what a network that learns some labels finds in volumes that it has not seen."""
    settings = load_settings(TrainSettings, RECIPE)
    settings = settings if steps is None else replace(settings, steps=steps)
    with timed(f"a network, {settings.steps} steps of {settings.batch} crops, from {labels}"):
        train(col, labels=labels, model=model, settings=settings, listen=tell)
    network = load_model(model, threads=1)
    with timed(f"segment {len(unseen)}"):
        for tomo in unseen:
            segment(tomo, network, name=labels, tile=TILE, overlap=OVERLAP, workers=usable_cores())
    return [(tomo.probs(labels).values, tomo) for tomo in unseen]


def show(title: str, pairs: Sequence[Pair]) -> float:
    """Print and give the macro Dice against the truth, mean over volumes; print each class's."""
    found = [Agreement.measure(p, tomo.labels("truth").values) for p, tomo in pairs]
    macro = float(np.mean([agreement.macro_dice for agreement in found]))
    of_class = np.nanmean([agreement.dice for agreement in found], axis=0)
    named = zip(pairs[0][1].classes.names, of_class, strict=True)
    listed = ", ".join(f"{name} {value:.3f}" for name, value in named)
    print(f"  {title:<34} {macro:.3f}   {listed}", flush=True)
    return macro


def main(steps: int | None = None) -> None:
    begun, worked = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        col, known, unseen = make_collection(folder)
        with timed(f"pseudo-labels of {LABELLED}"):
            for tomo in known:
                pseudolabel(tomo, "forest")
        in_volume = [(tomo.labels("forest").values, tomo) for tomo in known]
        across = []
        for density in (as_stored, normalised):
            how = density.__name__.replace("_", " ")
            with timed(f"a forest of all strokes, applied to {len(unseen)} others {how}"):
                across.append(by_forest(density, known, unseen))
        learned = by_network(col, "forest", folder / "m", steps, unseen)
        minutes = (time.perf_counter() - begun) / 60
        of_processor = (time.process_time() - worked) / 60
        print(f"macro Dice against the truth, and that of each class, mean over {LABELLED} volumes")
        a = show("(a) forest, in its own volume", in_volume)
        b = show("(b) forest, across volumes", across[0])
        n = show("    the same, of normalised volumes", across[1])
        c = show("(c) network, unseen volumes", learned)
        print(f"  (c) - (b) {c - b:+.3f}, normalised {c - n:+.3f}, goal {GAIN:+.3f}")
        print(f"  (c) - (a) {c - a:+.3f}, goal above 0; of different volumes, and of one seed")
        print(
            f"  {minutes:.1f} minutes on {usable_cores()} cores, {of_processor:.1f} of processor "
            f"time; goal {MOST_MINUTES} and {2 * MOST_MINUTES}"
        )
        print(f"  peak memory of the process {format_bytes(peak_memory_bytes())}")
        show(
            "(d) network taught by the truth", by_network(col, "truth", folder / "t", steps, unseen)
        )


if __name__ == "__main__":
    main()
