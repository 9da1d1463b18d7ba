"""A few strokes carried to volumes that nobody labelled: the forest, and the network it teaches.

Six phantoms, truth known. Strokes on three of them make forests and pseudo-labels; a network
learns these, and labels the other three. Everything on the processor, from the first voxel on.
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
from otzi.pseudo.forest_file import load_forest
from otzi.pseudo.lazy import pseudo_labels
from otzi_pipelines.import_labels import import_labels
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.label.pseudolabel import pseudolabel
from otzi_pipelines.label.stroke_import import import_strokes
from otzi_pipelines.phantom.make import make_phantoms
from otzi_pipelines.phantom.settings import PhantomSettings
from otzi_pipelines.segment.segmentation import segment
from otzi_pipelines.train.settings import AugmentationSettings, TrainSettings
from otzi_pipelines.train.split import Split, write_split
from otzi_pipelines.train.training import train

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otzi.events import Event
    from otzi.tomogram import Tomogram

PHANTOMS = PhantomSettings(size=(88, 176, 176), voxel_size_angstrom=15.0)
LABELLED = 3
TRAINING = TrainSettings(
    steps=300,
    batch=2,
    crop_voxels=64,
    width=8,
    levels=3,
    learning_rate=1e-2,
    augmentation=AugmentationSettings(gain=0.2, offset=0.2),
    validate_every=100,
    validation_crops=4,
)
GAIN = 0.15


def tell(event: Event) -> None:
    if isinstance(event, Noted):
        print(f"    {event.message}", flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    begun, worked = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - begun, time.process_time() - worked
    print(f"  {wall:7.1f} s, {cpu:7.1f} s of processor time  {what}", flush=True)


def macro_dice(pairs: Sequence[tuple[np.ndarray, Tomogram]]) -> tuple[float, np.ndarray]:
    """Give macro Dice and that of each class, mean over volumes."""
    found = [Agreement.measure(p, tomo.labels("truth").values).dice for p, tomo in pairs]
    return float(np.nanmean(found)), np.nanmean(found, axis=0)


def main(steps: int = TRAINING.steps) -> None:
    begun = time.perf_counter()
    settings = replace(TRAINING, steps=steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
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
        with timed(f"pseudo-labels of {LABELLED}"):
            for tomo in known:
                pseudolabel(tomo, "forest")
        in_volume = [(tomo.labels("forest").values, tomo) for tomo in known]
        with timed("forests applied to volumes that they have not seen"):
            across = []
            for source, tomo in zip(known, unseen, strict=True):
                forest = load_forest(source.path("labels/forest") / "forest")
                across.append((pseudo_labels(tomo.raw, forest.bank, forest).values, tomo))
        parts = dict.fromkeys((tomo.id for tomo in known), "train")
        write_split(col, Split(parts | dict.fromkeys((tomo.id for tomo in unseen), "test")))
        with timed(f"a network, {steps} steps of {settings.batch} crops"):
            train(col, labels="forest", model=folder / "m", settings=settings, listen=tell)
        model = load_model(folder / "m", threads=1)
        with timed(f"segment {len(unseen)}"):
            for tomo in unseen:
                segment(tomo, model, name="net", tile=64, overlap=32, workers=usable_cores())
        by_network = [(tomo.probs("net").values, tomo) for tomo in unseen]
        minutes = (time.perf_counter() - begun) / 60
        worked = time.process_time() / 60
        print(
            f"macro Dice against the truth, after {minutes:.1f} minutes on {usable_cores()} cores"
        )
        print(f"  {worked:.1f} minutes of processor time")
        print(f"  peak memory of the process {format_bytes(peak_memory_bytes())}")
        rows = {
            "(a) forest, in its own volume": in_volume,
            "(b) forest, across volumes": across,
            "(c) network, unseen volumes": by_network,
        }
        dice = {}
        for title, pairs in rows.items():
            dice[title[:3]], of_class = macro_dice(pairs)
            named = zip(col.classes.names, of_class, strict=True)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in named)
            print(f"  {title:<30} {dice[title[:3]]:.3f}   {shown}")
        print(f"  (c) − (b) {dice['(c)'] - dice['(b)']:+.3f}, goal {GAIN:+.3f}")
        print(f"  (c) − (a) {dice['(c)'] - dice['(a)']:+.3f}, goal above 0")


if __name__ == "__main__":
    main()
