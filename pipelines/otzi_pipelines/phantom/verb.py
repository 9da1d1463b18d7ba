"""Verb phantom: synthetic tomograms with known truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otzi.cli import verb
from otzi.console import Console
from otzi.errors import UsageError
from otzi.settings import load_settings
from otzi_pipelines.phantom.make import make_phantoms
from otzi_pipelines.phantom.settings import ParticleSettings, PhantomSettings

if TYPE_CHECKING:
    from otzi.box import Zyx

__all__ = ["command"]


@verb
def command(
    console: Console,
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Gets tomograms/, labels/, strokes/ and cards/."),
    ],
    *,
    count: Annotated[int, typer.Option(help="How many volumes there are to be.")] = 1,
    size: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Voxels of a volume; 128,256,256.")
    ] = None,
    voxel_size: Annotated[float | None, typer.Option(metavar="Å", help="As a rule 10.")] = None,
    snr: Annotated[
        float | None, typer.Option(help="Variance of signal over that of noise; 0.5.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is random; 0.")] = None,
    name: Annotated[str | None, typer.Option(help="What ids begin with; phantom.")] = None,
    particle: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.map", help="A density to put copies of into the ice."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="All settings; options go before it.")
    ] = None,
) -> None:
    """Make tomograms with known truth: virions, dust, gold, missing wedge, CTF, noise."""
    settings = PhantomSettings() if config is None else load_settings(PhantomSettings, config)
    given: dict[str, Any] = {
        "size": None if size is None else _parse_size(size),
        "voxel_size_angstrom": voxel_size,
        "snr": snr,
        "seed": seed,
        "name": name,
    }
    specimen = settings.specimen
    added = tuple(ParticleSettings(file) for file in particle or ())
    settings = replace(
        settings,
        specimen=replace(specimen, particles=specimen.particles + added),
        **{key: value for key, value in given.items() if value is not None},
    )
    report = make_phantoms(folder, settings, count=count, listen=console)
    console.result(
        {"phantoms": list(report)},
        "\n".join(f"{one['state']}  {one['tomogram']}" for one in report),
    )


def _parse_size(text: str) -> Zyx:
    words = text.split(",")
    if len(words) != 3 or not all(word.strip().isdecimal() for word in words):
        raise UsageError(f"size {text!r}: give three numbers of voxels, as 128,256,256")
    z, y, x = map(int, words)
    return z, y, x
