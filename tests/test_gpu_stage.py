"""Pictures on a GPU, by its own kernels on a processor: whole, in bricks, and where it is full."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from host_gpu import HostGpu, host_kernels
from otzi.errors import MemoryBudgetError, UsageError
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.gpu_stage import GpuStage
from otzi_viewers.render.kernels import build
from otzi_viewers.render.scene import Camera, Density, Light
from otzi_viewers.render.source import VolumeSource
from otzi_viewers.render.stream import StreamedStage
from otzi_viewers.render.volume import load_volume
from pictures import add_probs, blobs, look, scene_of

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable
    from pathlib import Path

    from otzi.tomogram import Tomogram
    from otzi_viewers.render.scene import Scene

TWO = (
    look("a", color="#c79aab", extinction=0.6, low=0.1),
    look("b", color="#3f6fb5", extinction=0.9, low=0.05),
)
LIGHT = Light(occlusion=1.2, shadow=2.4, occlusion_radius=0.1, shadow_length=0.4)
RAMP = Density(low=0.2, high=0.9)
SHAPE = (40, 44, 50)
BRICKED = 350_000
"""Bytes of the device in which 5 bricks of 16 voxels fit beside a picture of `SCENE`."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Built once for all processes of the tests."""
    return host_kernels(tmp_path_factory.getbasetemp().parent)


def scene_for(*looks, size=(36, 28), camera=None, light=LIGHT, **quality) -> Scene:
    return scene_of(
        *(looks or TWO),
        size=size,
        light=light,
        density=RAMP,
        camera=camera or Camera(),
        **{"spp": 2, **quality},
    )


SCENE = scene_for()


def decibel(found, expected) -> float:
    return float(-10 * np.log10(max(np.mean((found - expected) ** 2), 1e-20)))


def assert_same(found, expected) -> None:
    """Compare colour and depth to the bit."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


CASES = [
    *(("physical", lighting) for lighting in ("mc", "baked", "cone")),
    *((look, "mc") for look in ("viewer", "dvr", "mip", "iso")),
]


@pytest.mark.parametrize("weight_steps", [0, 256])
@pytest.mark.parametrize(("look", "lighting"), CASES)
def test_a_gpu_draws_what_a_processor_draws(
    library: ctypes.CDLL, look: str, lighting: str, weight_steps: int
) -> None:
    volume = blobs((24, 26, 30), spacing=(1.5, 1.0, 1.0))
    scene = scene_for(look=look, lighting=lighting, size=(24, 20))
    expected, expected_depth = Stage(volume).render(scene)
    found, depth = GpuStage(Stage(volume), HostGpu(library, weight_steps=weight_steps)).render(
        scene
    )
    assert expected[..., 3].max() > 0.5
    # Rays in float32 and the order of interpolation; or the texture units' coarse weights.
    assert decibel(found, expected) > (55 if weight_steps else 95)
    there = np.isfinite(expected_depth) & np.isfinite(depth)
    apart = np.abs(depth[there] - expected_depth[there])
    assert (apart <= 0.5).mean() > (0.99 if weight_steps else 0.999)
    assert (np.isfinite(expected_depth) == np.isfinite(depth)).mean() > 0.99


def test_a_processor_can_weigh_as_coarsely_as_texture_units(
    library: ctypes.CDLL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = blobs((24, 26, 30))
    # Of parallel rays, both devices have the same bits.
    scene = replace(SCENE, camera=Camera(azimuth=0, elevation=0, projection="orthographic"))
    exact, _ = Stage(volume).render(scene)
    coarse, _ = GpuStage(Stage(volume), HostGpu(library, weight_steps=256)).render(scene)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-DOTZI_WEIGHT_STEPS=256"))
    build.library_path.cache_clear()
    try:
        found, _ = Stage(volume).render(scene)
    finally:
        build.library_path.cache_clear()
    assert decibel(found, coarse) > decibel(exact, coarse) + 20


@pytest.mark.parametrize("n_classes", [1, 4, 9])
@pytest.mark.parametrize("is_wide", [False, True])
def test_any_number_of_packs_and_bits(library: ctypes.CDLL, n_classes: int, is_wide: bool) -> None:
    volume = blobs((20, 21, 23), n_classes=n_classes)
    if is_wide:
        volume = replace(volume, data=volume.data.astype(np.uint16) * 257)
    scene = scene_for(*(look(f"c{n}", extinction=0.5) for n in range(n_classes)))
    found, _ = GpuStage(Stage(volume), HostGpu(library)).render(scene)
    assert decibel(found, Stage(volume).render(scene)[0]) > 95


@pytest.mark.parametrize(
    "camera",
    [
        Camera(),
        Camera(distance=0.1, azimuth=200, elevation=-30),
        Camera(projection="orthographic", azimuth=-60, elevation=10, roll=20),
        Camera(azimuth=0, elevation=0, projection="orthographic"),
    ],
)
@pytest.mark.parametrize(
    ("copies", "computes"), [(a, b) for a in (False, True) for b in (False, True)]
)
def test_bricks_change_no_bit_however_the_queues_dawdle(
    library: ctypes.CDLL, camera: Camera, copies: bool, computes: bool
) -> None:
    volume = blobs(SHAPE, share=0.2)
    scene = replace(SCENE, camera=camera)
    whole = GpuStage(Stage(volume), HostGpu(library)).render(scene)
    assert whole[0].any()
    gpu = HostGpu(library, copies_at_once=copies, computes_at_once=computes)
    stage = GpuStage(Stage(volume), gpu, BRICKED)
    for _ in range(2):
        assert_same(stage.render(scene), whole)
    assert stage.n_bricks_read > 5
    assert gpu.most_bytes <= BRICKED


def test_a_stack_of_packs_is_bricked_too(library: ctypes.CDLL) -> None:
    volume = blobs(SHAPE, n_classes=5, spacing=(1.3, 1.0, 1.0))
    fine = replace(volume, data=volume.data.astype(np.uint16) * 257)
    scene = scene_for(*(look(f"c{n}", extinction=0.2) for n in range(5)))
    whole = GpuStage(Stage(fine), HostGpu(library)).render(scene)
    gpu = HostGpu(library, copies_at_once=False)
    stage = GpuStage(Stage(fine), gpu, 500_000)
    assert_same(stage.render(scene), whole)
    assert stage.n_bricks_read > 5


def test_rays_that_do_not_fit_are_carried_through_in_passes(library: ctypes.CDLL) -> None:
    volume = blobs(SHAPE, share=0.2)
    scene = scene_for(spp=7)
    whole = GpuStage(Stage(volume), HostGpu(library)).render(scene)
    gpu = HostGpu(library, copies_at_once=False, computes_at_once=False)
    assert_same(GpuStage(Stage(volume), gpu, BRICKED).render(scene), whole)
    begun = sum(name == "begin" for name, *_ in gpu.launched)
    assert 1 < begun < 7


def test_bricks_behind_what_is_opaque_are_not_read(library: ctypes.CDLL) -> None:
    volume = blobs(SHAPE, share=0.9)
    volume.data[:6] = 255
    scene = scene_for(look("a", extinction=9.0), look("b"), camera=Camera(azimuth=180, elevation=0))
    # Seen from the side of plane 0, and from that of the last.
    behind, before = (GpuStage(Stage(volume), HostGpu(library), BRICKED) for _ in range(2))
    behind.render(replace(scene, camera=Camera(azimuth=180, elevation=0)))
    before.render(replace(scene, camera=Camera(azimuth=0, elevation=0)))
    assert behind.n_bricks_read < before.n_bricks_read / 2


def test_bricks_stay_for_the_next_picture(library: ctypes.CDLL) -> None:
    volume = blobs(SHAPE)
    gpu = HostGpu(library)
    stage = GpuStage(Stage(volume), gpu, BRICKED + 3 * 18**3 * 4)
    stage.render(SCENE)
    first = stage.n_bricks_read
    stage.render(replace(SCENE, camera=Camera(azimuth=40)))
    second = stage.n_bricks_read - first
    assert 8 < second <= first - 4
    # Other looks need another occluder, not another volume.
    other = tuple(replace(look, extinction=0.05) for look in SCENE.classes)
    dimmer = stage.render(replace(SCENE, classes=other))
    assert stage.n_bricks_read - first - second <= first - 4
    expected = GpuStage(Stage(volume), HostGpu(library)).render(replace(SCENE, classes=other))
    assert_same(dimmer, expected)


def test_light_is_baked_and_the_volume_copied_once_for_all_frames(library: ctypes.CDLL) -> None:
    gpu = HostGpu(library)
    stage = GpuStage(Stage(blobs(SHAPE)), gpu)
    scene = scene_for(lighting="baked")
    first = stage.render(scene)
    filled = gpu.n_filled
    stage.render(replace(scene, camera=Camera(azimuth=50)))
    assert_same(stage.render(scene), first)
    assert gpu.n_filled == filled
    assert sum(name == "bake" for name, *_ in gpu.launched) == 1
    stage.render(replace(scene, light=replace(LIGHT, position=(0.0, 1.0, 0.0))))
    assert sum(name == "bake" for name, *_ in gpu.launched) == 2


@pytest.mark.parametrize("change", ["position", "radius", "color", "attach"])
def test_each_part_of_the_light_is_seen(library: ctypes.CDLL, change: str) -> None:
    values = {"position": (0.2, -1.0, 0.8), "radius": 0.9, "color": "#ff8000", "attach": "camera"}
    scene = replace(SCENE, light=replace(LIGHT, **{change: values[change]}))
    volume = blobs((24, 26, 30))
    before, _ = GpuStage(Stage(volume), HostGpu(library)).render(SCENE)
    found, _ = GpuStage(Stage(volume), HostGpu(library)).render(scene)
    assert decibel(found, Stage(volume).render(scene)[0]) > 95
    assert decibel(found, before) < 60


def test_snapshots_are_the_pictures_of_fewer_samples(library: ctypes.CDLL) -> None:
    volume = blobs((24, 26, 30))
    taken = {}
    stage = GpuStage(Stage(volume), HostGpu(library, computes_at_once=False))
    scene = scene_for(spp=6)
    last = stage.render(scene, snapshot=lambda n, *picture: taken.update({n: picture}))
    assert sorted(taken) == [1, 2, 4, 6]
    for n, picture in taken.items():
        fewer = replace(scene, quality=replace(scene.quality, spp=n))
        assert_same(picture, GpuStage(Stage(volume), HostGpu(library)).render(fewer))
    assert_same(taken[6], last)


def test_several_scenes_are_drawn_one_after_the_other(library: ctypes.CDLL) -> None:
    stage = GpuStage(Stage(blobs((24, 26, 30))), HostGpu(library))
    scenes = [replace(SCENE, camera=Camera(azimuth=angle)) for angle in (0, 90)]
    for found, scene in zip(stage.render_all(scenes), scenes, strict=True):
        assert_same(found, stage.render(scene))


def test_an_empty_volume_gives_nothing(library: ctypes.CDLL) -> None:
    volume = blobs((20, 20, 20))
    volume.data[:] = 0
    for memory_bytes in (None, 200_000):
        rgba, depth = GpuStage(Stage(volume), HostGpu(library), memory_bytes).render(SCENE)
        assert not rgba.any()
        assert np.isinf(depth).all()


def test_a_device_that_has_less_than_it_said_is_asked_for_half(library: ctypes.CDLL) -> None:
    volume = blobs(SHAPE)
    whole = GpuStage(Stage(volume), HostGpu(library)).render(SCENE)
    told = []
    gpu = HostGpu(library, capacity_bytes=400_000, promised_bytes=700_000)
    stage = GpuStage(Stage(volume), gpu)
    assert_same(stage.render(SCENE, told.append), whole)
    assert any("less memory than it said" in getattr(event, "message", "") for event in told)
    assert gpu.most_bytes <= 400_000


def test_what_does_not_fit_is_an_error_and_nothing_stays(library: ctypes.CDLL) -> None:
    volume = blobs(SHAPE)
    gpu = HostGpu(library, capacity_bytes=100_000, promised_bytes=700_000)
    with pytest.raises(MemoryBudgetError, match=r"host has no .* left for a picture of 36x28"):
        GpuStage(Stage(volume), gpu).render(SCENE)
    assert gpu.used_bytes == 0
    with pytest.raises(MemoryBudgetError, match="allow more with --gpu-memory"):
        GpuStage(Stage(volume), HostGpu(library), 50_000).render(SCENE)
    with pytest.raises(UsageError, match=r"the look mip is not streamed.*--gpu-memory"):
        GpuStage(Stage(volume), HostGpu(library), BRICKED).render(scene_for(look="mip"))


def test_what_is_allowed_is_not_passed(library: ctypes.CDLL) -> None:
    volume = blobs(SHAPE)
    for lighting, allowed in itertools.product(("mc", "baked", "cone"), (250_000, 10**6)):
        gpu = HostGpu(library)
        GpuStage(Stage(volume), gpu, allowed).render(scene_for(lighting=lighting))
        assert allowed / 3 < gpu.most_bytes <= allowed


def test_a_volume_in_the_store_is_streamed(
    library: ctypes.CDLL, add_tomogram: Callable[..., Tomogram]
) -> None:
    volume = blobs((70, 50, 90), share=0.2)
    tomo = add_tomogram((volume.data[..., -1].astype(np.int16) - 128) * 9)
    drawn = volume.data[..., :2] // 2
    add_probs(tomo, "net", np.moveaxis(drawn, -1, 0), ("background", "a", "b"))
    source = VolumeSource(tomo, "net", ("a", "b"), SCENE.density)
    expected = GpuStage(Stage(load_volume(source)), HostGpu(library)).render(SCENE)
    assert expected[0].any()
    gpu = HostGpu(library, copies_at_once=False, computes_at_once=False)
    stage = GpuStage(StreamedStage(source, 64), gpu)
    for _ in range(2):
        assert_same(stage.render(SCENE), expected)
    # All of them stay: what is read once is not read again.
    assert 1 < stage.n_bricks_read <= 3 * 2 * 3
    # Bricks of the device are smaller than those that fit into the memory of the processor.
    assert max(depth for depth, _, _ in gpu.packed_shapes) == 32 + 2
