"""Verb demo: the whole way on the real tomogram that ships with otzi."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otzi.cli import call, verb
from otzi.collection import Collection, create_collection, open_collection
from otzi.console import Console
from otzi.errors import CannotCreate, NoCompiler
from otzi.events import step
from otzi.memory import format_bytes, parse_bytes, peak_memory_bytes, usable_cores
from otzi.networks.weights import load_model
from otzi.pseudo.bank import FeatureBank
from otzi.strokes import read_strokes
from otzi_pipelines.demo_data import TOMOGRAM, strokes_file, unpack_tomogram
from otzi_pipelines.ingest.batch import ingest
from otzi_pipelines.label.pseudolabel import pseudolabel
from otzi_pipelines.label.stroke_import import import_strokes
from otzi_pipelines.ramps.estimate import estimate_ramps
from otzi_pipelines.segment.segmentation import segment
from otzi_pipelines.train.settings import TrainSettings
from otzi_pipelines.train.training import train
from otzi_pipelines.view_product import build_view

if TYPE_CHECKING:
    from otzi.tomogram import Tomogram

__all__ = ["command"]

_MEMORY_BYTES = parse_bytes("3GB")
_LABELS, _PROBS = "forest", "unet"

_TRAINING = TrainSettings(
    steps=240,
    batch=2,
    crop_voxels=64,
    width=8,
    levels=3,
    learning_rate=1e-2,
    class_weights=(1.0, 3.0, 1.0),
    validate_every=80,
    validation_crops=8,
)
"""A small network, soon trained: enough for one tomogram at 20 Å. Membrane is rare."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The stages of the demo, in the order of the methods; each skips what is done."""

    folder: Path
    console: Console

    @property
    def collection(self) -> Path:
        """Where the tomogram is kept."""
        return self.folder / "collection"

    @property
    def model(self) -> Path:
        """Where the network is kept."""
        return self.folder / "model"

    @property
    def picture(self) -> Path:
        """The picture to be made."""
        return self.folder / f"{TOMOGRAM}.png"

    def ingest(self) -> None:
        """Store the MRC file."""
        source = unpack_tomogram(self.folder)
        classes = read_strokes(strokes_file()).classes
        is_there = self.collection.exists()
        col = self._opened() if is_there else create_collection(self.collection, classes)
        ingest(col, [source], memory_bytes=_MEMORY_BYTES, listen=self.console)

    def strokes(self) -> None:
        """Import the strokes."""
        import_strokes(self._tomogram(), strokes_file(), listen=self.console)

    def pseudo_labels(self) -> None:
        """Label every voxel."""
        pseudolabel(
            self._tomogram(),
            _LABELS,
            bank=FeatureBank(),
            workers=usable_cores(),
            memory_bytes=_MEMORY_BYTES,
            listen=self.console,
        )

    def network(self) -> None:
        """Train the network."""
        train(
            self._opened(),
            labels=_LABELS,
            model=self.model,
            settings=_TRAINING,
            threads=usable_cores(),
            listen=self.console,
        )

    def probabilities(self) -> None:
        """Segment the tomogram."""
        segment(
            self._tomogram(),
            load_model(self.model, threads=1),
            name=_PROBS,
            workers=usable_cores(),
            memory_bytes=_MEMORY_BYTES,
            listen=self.console,
        )

    def ramps(self) -> None:
        """Estimate the ramps."""
        estimate_ramps(self._tomogram(), _PROBS, self.console)

    def view(self) -> None:
        """Make the product that the viewer reads."""
        build_view(self._tomogram(), _PROBS, self.console)

    def render(self) -> None:
        """Draw the picture, if there is a compiler for the renderer."""
        try:
            call(
                "render",
                self.console,
                collection=self.collection,
                tomogram=TOMOGRAM,
                output=self.picture,
                probs=_PROBS,
            )
        except NoCompiler as error:
            self.console.warn(f"no picture: {error}")

    def run(self) -> dict[str, float]:
        """Run all stages; give the seconds that each took."""
        stages = [
            ("ingest", "MRC file → OME-Zarr with a pyramid", self.ingest),
            ("strokes", "what a person drew on five slices → voxels of known class", self.strokes),
            ("pseudolabel", "37 features and a forest → labels of every voxel", self.pseudo_labels),
            ("train", "labels → a small residual U-Net", self.network),
            ("segment", "overlapping tiles, blended → probabilities", self.probabilities),
            ("ramps", "where each class begins to be seen", self.ramps),
            ("view", "density and probabilities as the viewer reads them", self.view),
            ("render", "probabilities × density, lit → a picture", self.render),
        ]
        seconds = {}
        for number, (name, what, run) in enumerate(stages, 1):
            self.console.say(f"{number}/{len(stages)} {name}: {what}")
            began = time.monotonic()
            with step(self.console, name):
                run()
            seconds[name] = time.monotonic() - began
        return seconds

    def _opened(self) -> Collection:
        return open_collection(self.collection, mode="r+")

    def _tomogram(self) -> Tomogram:
        return self._opened()[TOMOGRAM]


@verb
def command(
    console: Console,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where all of it goes.")],
) -> None:
    """Go the whole way on a real tomogram: a bacterium, from MRC file to picture, in minutes."""
    if folder.exists() and not folder.is_dir():
        raise CannotCreate(f"{folder} is a file: name a folder")
    demo = Demo(folder, console)
    seconds = demo.run()
    peak = peak_memory_bytes()
    console.say(f"{sum(seconds.values()):.0f} s in all, peak memory {format_bytes(peak)}")
    look = f"otzi view {demo.collection}"
    console.result(
        {
            "collection": str(demo.collection),
            "model": str(demo.model),
            "picture": str(demo.picture),
            "view": look,
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "peak_memory_bytes": peak,
        },
        f"picture  {demo.picture}\nlook     {look}",
    )
