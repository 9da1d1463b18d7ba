"""CuPy as a device: what it takes without a card, and pictures where there is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otzi.cuda_device import find_cuda_device
from otzi.errors import DeviceUnavailable, MemoryBudgetError
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.gpu import OutOfGpuMemory
from otzi_viewers.render.gpu_stage import GpuStage
from otzi_viewers.render.kernels import build
from otzi_viewers.render.kernels.params import LIGHTINGS, LOOKS, Params
from otzi_viewers.render.scene import Camera, Density, Light
from pictures import blobs, look, scene_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otzi_viewers.render.cuda import CudaGpu

SCENE = scene_of(
    look("a", color="#c79aab", extinction=0.6, low=0.1),
    look("b", color="#3f6fb5", extinction=0.9, low=0.05),
    size=(160, 120),
    light=Light(occlusion=1.2, shadow=2.4, occlusion_radius=0.1, shadow_length=0.4),
    density=Density(low=0.2, high=0.9),
    camera=Camera(),
    spp=2,
)
WAYS = [
    *(("physical", lighting) for lighting in LIGHTINGS),
    *((look, "mc") for look in LOOKS if look != "physical"),
]


@pytest.fixture
def gpu(require: Callable[[str, str], None]) -> CudaGpu:
    try:
        find_cuda_device()
    except DeviceUnavailable as error:
        require("gpu", str(error))
    from otzi_viewers.render.cuda import CudaGpu

    return CudaGpu()


@pytest.fixture
def coarse_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor that interpolates as coarsely as texture units do."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-DOTZI_WEIGHT_STEPS=256"))
    build.library_path.cache_clear()
    yield
    build.library_path.cache_clear()


def decibel(found, expected) -> float:
    return float(-10 * np.log10(max(np.mean((found - expected) ** 2), 1e-20)))


def assert_same(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def scene_for(look: str, lighting: str):
    return replace(SCENE, quality=replace(SCENE.quality, look=look, lighting=lighting))


def test_cupy_takes_what_kernels_are_given(require: Callable[[str, str], None]) -> None:
    """Arguments are looked at before the driver is: it is that which is missing here."""
    try:
        import cupy
    except ImportError as error:
        require("nvrtc", f"CuPy is not here: {error}")
        raise
    if cupy.cuda.runtime.driverGetVersion():
        pytest.skip("a driver is here: the other tests launch kernels")
    function = cupy.cuda.function.Function.__new__(cupy.cuda.function.Function)

    class Stream:
        ptr = 0

    def launch(argument: object) -> None:
        function((1, 1, 1), (1, 1, 1), (argument,), stream=Stream())

    for argument in (np.void(bytes(Params())), np.uint64(1), np.uint32(1), np.int32(1)):
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="InsufficientDriver"):
            launch(argument)
    with pytest.raises(TypeError, match="Unsupported type"):
        launch(object())


@pytest.mark.parametrize(
    "name",
    [
        *("Device", "Event", "Memory", "MemoryPointer", "PinnedMemory", "PinnedMemoryPointer"),
        *("Stream", "memory.OutOfMemoryError", "runtime.CUDARuntimeError", "runtime.memGetInfo"),
        *("runtime.getDeviceProperties", "runtime.cudaAddressModeClamp"),
        *("runtime.cudaChannelFormatKindUnsigned", "runtime.cudaFilterModeLinear"),
        *("runtime.cudaReadModeNormalizedFloat", "runtime.cudaResourceTypeArray"),
        *("texture.CUDAarray", "texture.ChannelFormatDescriptor", "texture.ResourceDescriptor"),
        *("texture.TextureDescriptor", "texture.TextureObject", "nvrtc.getSupportedArchs"),
        *("MemoryPointer.copy_from_host_async", "MemoryPointer.copy_to_host_async"),
        *("texture.CUDAarray.copy_from", "Stream.wait_event", "Event.synchronize"),
    ],
)
def test_cupy_still_has_what_is_used_of_it(name: str, require: Callable[[str, str], None]) -> None:
    try:
        import cupy
    except ImportError as error:
        require("nvrtc", f"CuPy is not here: {error}")
        raise
    found = cupy.cuda
    for part in name.split("."):
        found = getattr(found, part)


@pytest.mark.gpu
@pytest.mark.parametrize(("look", "lighting"), WAYS)
def test_a_card_draws_what_a_processor_draws(gpu: CudaGpu, look: str, lighting: str) -> None:
    volume = blobs((80, 88, 96))
    scene = scene_for(look, lighting)
    expected, expected_depth = Stage(volume).render(scene)
    found, depth = GpuStage(Stage(volume), gpu).render(scene)
    assert expected[..., 3].max() > 0.5
    assert decibel(found, expected) >= 45
    both = np.isfinite(depth) & np.isfinite(expected_depth)
    assert (np.abs(depth[both] - expected_depth[both]) <= 0.5).mean() >= 0.99


@pytest.mark.gpu
@pytest.mark.parametrize(("look", "lighting"), WAYS)
def test_and_nearer_with_the_same_weights(
    gpu: CudaGpu, coarse_weights: None, look: str, lighting: str
) -> None:
    volume = blobs((80, 88, 96))
    scene = scene_for(look, lighting)
    expected, _ = Stage(volume).render(scene)
    found, _ = GpuStage(Stage(volume), gpu).render(scene)
    assert decibel(found, expected) >= 55


@pytest.mark.gpu
@pytest.mark.parametrize("n_classes", [1, 4, 9])
@pytest.mark.parametrize("is_wide", [False, True])
def test_a_card_reads_any_number_of_packs_and_bits(
    gpu: CudaGpu, n_classes: int, is_wide: bool
) -> None:
    volume = blobs((40, 44, 48), n_classes=n_classes)
    if is_wide:
        volume = replace(volume, data=volume.data.astype(np.uint16) * 257)
    looks = tuple(look(f"c{n}", extinction=0.5) for n in range(n_classes))
    scene = replace(SCENE, classes=looks)
    found, _ = GpuStage(Stage(volume), gpu).render(scene)
    assert decibel(found, Stage(volume).render(scene)[0]) >= 45


@pytest.mark.gpu
@pytest.mark.parametrize("camera", [Camera(), Camera(distance=0.1), Camera(azimuth=200, roll=30)])
@pytest.mark.parametrize("lighting", ["mc", "baked"])
def test_bricks_change_no_bit_on_a_card(gpu: CudaGpu, camera: Camera, lighting: str) -> None:
    volume = blobs((150, 130, 170), share=0.2)
    scene = replace(scene_for("physical", lighting), camera=camera)
    whole = GpuStage(Stage(volume), gpu).render(scene)
    assert whole[0].any()
    stage = GpuStage(Stage(volume), gpu, 8_000_000)
    for _ in range(2):
        assert_same(stage.render(scene), whole)
    assert stage.n_bricks_read > 5


@pytest.mark.gpu
def test_a_full_card_is_an_error_and_is_given_back(gpu: CudaGpu) -> None:
    before = gpu.free_bytes()
    filler = []
    for n_bytes in (2**30, 2**26, 2**24):
        try:
            while True:
                filler.append(gpu.memory(n_bytes))
        except OutOfGpuMemory:
            continue
    volume = blobs((160, 160, 160))
    stage = GpuStage(Stage(volume), _Boastful(gpu))
    told: list[object] = []
    with pytest.raises(MemoryBudgetError, match="left for a picture of 160x120"):
        stage.render(SCENE, told.append)
    assert any("less memory than it said" in getattr(event, "message", "") for event in told)
    filler.clear()
    assert gpu.free_bytes() > 0.9 * before
    assert GpuStage(Stage(volume), gpu).render(SCENE)[0].any()


class _Boastful:
    """A device that says more is free than there is."""

    def __init__(self, gpu: CudaGpu) -> None:
        self._gpu = gpu

    def __getattr__(self, name: str):
        return getattr(self._gpu, name)

    def free_bytes(self) -> int:
        return 10**13


_SANITIZED = """
import numpy as np
from dataclasses import replace
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.cuda import CudaGpu
from otzi_viewers.render.gpu_stage import GpuStage
from test_cuda import SCENE
from pictures import blobs
scene = replace(SCENE, output=replace(SCENE.output, size=(64, 64)))
volume = blobs((70, 60, 80))
gpu = CudaGpu()
for memory_bytes in (None, 3_000_000):
    assert GpuStage(Stage(volume), gpu, memory_bytes).render(scene)[0].any()
"""


@pytest.mark.gpu
@pytest.mark.slow
def test_no_kernel_reaches_beside_its_memory(
    gpu: CudaGpu, require: Callable[[str, str], None]
) -> None:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        require("compute-sanitizer", "compute-sanitizer is not here")
    command = [str(tool), "--error-exitcode", "9", sys.executable, "-c", _SANITIZED]
    run = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
