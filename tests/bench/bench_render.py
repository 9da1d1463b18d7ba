"""The renderer beside VTK's volume mapper on a software rasteriser: one thread, CPU seconds.

The same volume, step, picture size and field of view. VTK draws one scalar channel, otzi three
classes and the density. Streaming: what bricks cost, and how much of the time is decoding. Quality:
what the shortcuts cost against the exact picture.
"""

from __future__ import annotations

import os

os.environ.setdefault("LP_NUM_THREADS", "1")

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from otzi.box import Box, tile
from otzi.collection import create_collection
from otzi_viewers.render.bricks import brick_maxima
from otzi_viewers.render.camera import pose
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.movie import frame_scene
from otzi_viewers.render.scene import (
    Camera,
    ClassLook,
    Density,
    Light,
    Movie,
    Output,
    Quality,
    Scene,
)
from otzi_viewers.render.source import VolumeSource
from otzi_viewers.render.stream import StreamedStage
from otzi_viewers.render.volume import Volume, packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from otzi.tomogram import Tomogram

SIDE, PIXELS, STEP = 128, 512, 0.5
FOV_DEGREES, DISTANCE = 34.0, 2.3
DARK = Light(occlusion=0.0, shadow=0.0)


def main() -> None:
    volume = phantom(0.3)
    rows = [("volume", f"{SIDE}³, {PIXELS}×{PIXELS} pixels, step {STEP} voxel, one thread", "")]
    plain, lit = cpu_seconds(volume, DARK), cpu_seconds(volume, Light())
    rows += [("otzi plain", f"{plain:.2f} CPU-s", ""), ("otzi lit", f"{lit:.2f} CPU-s", "")]
    try:
        vtk_plain, vtk_lit = vtk_seconds(volume.data[..., 0])
    except ImportError:
        rows.append(("VTK", "not installed: pip install vtk", ""))
    else:
        rows += [
            ("VTK plain", f"{vtk_plain:.2f} CPU-s", ""),
            ("VTK scattering", f"{vtk_lit:.2f} CPU-s", ""),
            ("plain / VTK plain", f"{plain / vtk_plain:.2f}", "≤ 0.7"),
            ("lit / VTK scattering", f"{lit / vtk_lit:.2f}", "≤ 0.5"),
        ]
    for share, goal in ((0.3, "≥ 2.5"), (0.1, "≥ 5"), (1.0, "≥ 0.95")):
        other = phantom(share)
        without, with_ = (cpu_seconds(other, DARK, skip_empty=skip) for skip in (False, True))
        found = occupied(other)
        rows.append((f"skipping, {found:.0%} of bricks", f"{without / with_:.2f} ×", goal))
    rows += streaming(volume)
    rows += quality(volume)
    for name, found, goal in rows:
        print(f"{name:38} {found:>44}   {goal}")


def phantom(share: float) -> Volume:
    """Give balls of three classes that touch this share of the bricks, or all."""
    random = np.random.default_rng(0)
    if share == 1.0:
        fields = ndimage.gaussian_filter(random.random((3, SIDE, SIDE, SIDE)), (0, 3, 3, 3))
        low = fields.min(axis=(1, 2, 3), keepdims=True)
        drawn = (fields - low) / (fields.max(axis=(1, 2, 3), keepdims=True) - low) * 0.3
    else:
        z, y, x = np.indices((SIDE, SIDE, SIDE), np.float32)
        drawn = np.zeros((3, SIDE, SIDE, SIDE), np.float32)
        for n in range(max(1, int(20 * share / 0.3))):
            centre = random.uniform(14, SIDE - 14, 3)
            radius = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
            drawn[n % 3] = np.maximum(drawn[n % 3], np.clip(13 - radius, 0, 1))
    noise = ndimage.gaussian_filter(random.random((SIDE,) * 3), 1).astype(np.float32)
    density = 0.6 + (noise - noise.mean()) / noise.std() * 0.08
    return packed(np.rint(drawn * 255).astype(np.uint8), np.clip(density, 0, 1))


def scene(light: Light, **quality: Any) -> Scene:
    looks = (
        ClassLook("spikes", low=0.1, extinction=0.55, color="#cf1f61"),
        ClassLook("membrane", low=0.1, extinction=0.3, color="#c79aab"),
        ClassLook("lumen", low=0.2, extinction=0.45, color="#223378"),
    )
    return Scene(
        classes=looks,
        density=Density(low=0.3, high=0.9),
        light=light,
        camera=Camera(azimuth=30, elevation=20, distance=DISTANCE, fov_degrees=FOV_DEGREES),
        quality=replace(Quality(spp=1, step=STEP), **quality),
        output=Output(size=(PIXELS, PIXELS)),
    )


def cpu_seconds(volume: Volume, light: Light, *, skip_empty: bool = True) -> float:
    stage = Stage(volume, n_threads=1, skip_empty=skip_empty)
    return best(lambda: stage.render(scene(light)))


def best(work: Callable[[], Any], repeats: int = 3) -> float:
    work()
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return min(found)


def occupied(volume: Volume) -> float:
    from otzi_viewers.render.bricks import brick_distances, brick_maxima
    from otzi_viewers.render.transfer import transfer_of

    chosen = scene(DARK)
    transfer = transfer_of(chosen.classes, chosen.density, volume.value_scale)
    return float((brick_distances(brick_maxima(volume.data), transfer) == 0).mean())


class Resident:
    """A volume in memory that is read in bricks, as a `VolumeSource` is."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def __getattr__(self, name: str) -> Any:
        return getattr(self._volume, name)

    def read(self, box: Box) -> np.ndarray:
        return self._volume.data[box.slices]

    def brick_maxima(self, _: Any) -> np.ndarray:
        return brick_maxima(self._volume.data)


def streaming(volume: Volume) -> list[tuple[str, str, str]]:
    """Compare bricks with the whole, and a picture out of core with decoding alone."""
    rows = []
    for name, light in (("plain", DARK), ("lit", Light())):
        resident = StreamedStage(Resident(volume), 64, n_threads=1)  # type: ignore[arg-type]
        bricked = best(lambda stage=resident, light=light: stage.render(scene(light)))
        rows.append(
            (f"bricks in memory / whole, {name}", bricked / cpu_seconds(volume, light), "≤ 1.15")
        )
    with TemporaryDirectory() as folder:
        tomo = published(Path(folder))
        names = ("spikes", "membrane", "lumen")
        source = VolumeSource(tomo, "net", names, Density(smoothing=0), cache_bytes=1 << 28)
        chosen = replace(scene(DARK), output=Output(size=(128, 128)))
        stage = StreamedStage(source, 128)
        decoding = best(lambda: decode_all(source))
        reading = best(lambda: read_all(replace(source)))
        drawing = best(lambda: stage.render(chosen))
        rows.append(("bricks made ready, of the decoding rate", decoding / reading, "≥ 0.7"))
        rows.append(("out of core, of the decoding rate", decoding / drawing, "≥ 0.7"))
        turn = replace(chosen, movie=Movie(frames=240), output=Output(size=(32, 32)))
        frames = [frame_scene(turn, n) for n in range(8)]
        apart = sum(bricks_read(source, [frame]) for frame in frames)
        together = bricks_read(source, frames)
        rows.append(("8 frames of a turntable, bytes saved", apart / together, "≥ 4"))
    return [(name, f"{ratio:.2f} ×", goal) for name, ratio, goal in rows]


def published(folder: Path) -> Tomogram:
    """Give a tomogram of 256³ voxels, with haze in which every brick is seen."""
    side = 256
    random = np.random.default_rng(1)
    tomo = create_collection(folder / "c").add("ts")
    raw = random.normal(0, 1000, (side,) * 3).astype(np.int16)
    haze = ndimage.gaussian_filter(random.random((3, side, side, side), np.float32), (0, 2, 2, 2))
    drawn = np.rint(40 + 300 * (haze - haze.mean())).clip(0, 84).astype(np.uint8)
    rest = 255 - drawn.sum(axis=0, keepdims=True, dtype=np.uint8)
    whole = tuple(slice(side) for _ in range(3))
    spacing = (10.0,) * 3
    with tomo.write(
        "raw", dtype=np.int16, shape=(side,) * 3, spacing_angstrom=spacing, recipe={}
    ) as writer:
        writer[whole] = raw
    classes = ("background", "spikes", "membrane", "lumen")
    with tomo.write("probs/net", dtype=np.uint8, channels=classes, recipe={}) as writer:
        writer[(slice(4), *whole)] = np.concatenate([rest, drawn])
    return tomo


def decode_all(source: VolumeSource) -> None:
    """Decode every chunk once; nothing else is done with it."""
    raw, probabilities = source.tomo.array("raw"), source.tomo.array("probs/net")
    for box in tile(source.shape, (64, 64, 64)):
        raw[box.slices]
        probabilities[(slice(1, 4), *box.slices)]


def read_all(source: VolumeSource) -> None:
    """Make every brick ready to be drawn."""
    for brick in tile(source.shape, (128, 128, 128)):
        source.read(brick.grow(1).clip(source.shape))


def bricks_read(source: VolumeSource, scenes: list[Scene]) -> int:
    stage = StreamedStage(source, 64, len(scenes))
    for _ in stage.render_all(scenes):
        pass
    return stage.n_bricks_read


def vtk_seconds(values: np.ndarray) -> tuple[float, float]:
    """Give CPU seconds of a frame, plain and with scattering, of one scalar channel."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(*values.shape[::-1])
    flat = np.ascontiguousarray(values).ravel()
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=True))
    mapper = vtk.vtkGPUVolumeRayCastMapper()
    mapper.SetInputData(image)
    mapper.AutoAdjustSampleDistancesOff()
    mapper.SetSampleDistance(STEP)
    mapper.UseJitteringOn()
    opacity, color = vtk.vtkPiecewiseFunction(), vtk.vtkColorTransferFunction()
    opacity.AddPoint(25, 0.0)
    opacity.AddPoint(255, 0.4)
    color.AddRGBPoint(0, 0.8, 0.6, 0.7)
    shape = vtk.vtkVolumeProperty()
    shape.SetScalarOpacity(opacity)
    shape.SetColor(color)
    shape.SetInterpolationTypeToLinear()
    shape.SetScalarOpacityUnitDistance(1.0)
    actor = vtk.vtkVolume()
    actor.SetMapper(mapper)
    actor.SetProperty(shape)
    renderer, window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(PIXELS, PIXELS)
    window.AddRenderer(renderer)
    renderer.AddVolume(actor)
    light = vtk.vtkLight()
    light.SetPosition(SIDE, 2 * SIDE, SIDE)
    light.SetFocalPoint(*(SIDE / 2,) * 3)
    light.PositionalOn()
    renderer.AddLight(light)
    view = pose(scene(DARK).camera, (PIXELS, PIXELS), np.full(3, float(SIDE)))
    camera = renderer.GetActiveCamera()
    camera.SetPosition(*(view.eye[::-1] + SIDE / 2))
    camera.SetFocalPoint(*(SIDE / 2,) * 3)
    camera.SetViewUp(*view.up[::-1])
    camera.SetViewAngle(FOV_DEGREES)
    renderer.ResetCameraClippingRange()

    def draw() -> None:
        mapper.Modified()
        window.Render()
        window.WaitForCompletion()

    plain = best(draw)
    shape.ShadeOn()
    mapper.SetVolumetricScatteringBlending(1.0)
    mapper.SetGlobalIlluminationReach(1.0)
    return plain, best(draw)


def quality(volume: Volume) -> list[tuple[str, str, str]]:
    """Compare shortcuts with the exact picture of the same seed, after tone mapping."""
    from otzi_viewers.render.post import display

    small = replace(scene(Light()).output, size=(320, 320))

    def picture(**changes: Any) -> np.ndarray:
        chosen = replace(scene(Light(), **changes), output=small)
        return display(Stage(volume).render(chosen)[0], small)

    def decibel(one: np.ndarray, other: np.ndarray) -> str:
        return f"{-10 * np.log10(np.mean((one - other) ** 2)):.1f} dB"

    exact = picture(spp=256, step=0.125, gate=0.0)
    return [
        ("gate 1/32 against 0", decibel(picture(), picture(gate=0.0)), "≥ 48 dB"),
        ("16 rays a pixel against brute force", decibel(picture(spp=16), exact), "≥ 40 dB"),
        ("64 rays a pixel against brute force", decibel(picture(spp=64), exact), "≥ 45 dB"),
    ]


if __name__ == "__main__":
    main()
