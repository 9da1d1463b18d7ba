"""The renderer on a GPU, beside the rate at which that card reads textures: `make bench`.

A synthetic tomogram of full size, 8 bits, three classes, of which a third is not empty.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from bench_render import phantom
from bench_render import scene as small_scene

from otzi.cuda_device import find_cuda_device
from otzi.errors import DeviceUnavailable
from otzi.events import ignore
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.cuda import CudaGpu, compiled_by_nvrtc, nvrtc_version
from otzi_viewers.render.gpu_stage import GpuStage
from otzi_viewers.render.kernels.gpu_build import GpuSource, binary_path, gpu_source
from otzi_viewers.render.scene import Light
from otzi_viewers.render.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (500, 1024, 1440)
FETCHES, THREADS = 1024, 128 * 132 * 64
GIGA = 1e9

PEAK = r"""
// Each thread reads along x, as near rays do; the sum keeps the compiler from leaving reads out.
template <typename Texel> __device__ float first(Texel texel);
template <> __device__ float first(float texel) { return texel; }
template <> __device__ float first(float4 texel) { return texel.x + texel.y + texel.z + texel.w; }

template <typename Texel> __device__ void read(unsigned long long texture, float *out, int side) {
    unsigned int thread = blockIdx.x * blockDim.x + threadIdx.x;
    float x = thread % side + 0.3f, y = thread / side % side + 0.4f, z = 1.6f, sum = 0.0f;
    for (int i = 0; i < FETCHES; i++) {
        sum += first(tex3D<Texel>(texture, x, y, z));
        z += 0.01f;
    }
    out[thread] = sum;
}
extern "C" __global__ void read_one(unsigned long long texture, float *out, int side) {
    read<float>(texture, out, side);
}
extern "C" __global__ void read_four(unsigned long long texture, float *out, int side) {
    read<float4>(texture, out, side);
}
"""

STARTUP = """
import time
from otzi.events import ignore
from otzi_viewers.render.cuda import CudaGpu
begin = time.perf_counter()
CudaGpu().kernels("physical", "mc", ignore)
print(time.perf_counter() - begin)
"""


def main() -> None:
    try:
        card = find_cuda_device()
    except DeviceUnavailable as error:
        print(f"not measured: no CUDA device ({error})")
        return
    rows = [("card", f"{card}, {card.compiler}", "")]
    gpu = TimedGpu()
    peaks = {
        name: fetch_peak(gpu, *how)
        for name, how in {
            "RGBA8": (4, np.uint8),
            "RGBA16": (4, np.uint16),
            "R8": (1, np.uint8),
        }.items()
    }
    rows += [(f"trilinear reads of {n}", f"{rate:.0f} G/s", "") for n, rate in peaks.items()]
    volume = full_size()
    rows += resident(gpu, volume, peaks["RGBA8"])
    stage = GpuStage(Stage(volume), gpu, 2 * 10**9)
    wall = best(lambda: stage.render(scene((1920, 1080), spp=2)))
    rate = volume.data.nbytes / wall / GIGA
    rows.append(("streamed through 2 GB, 1080p", f"{wall:.2f} s, {rate:.1f} GB/s", ""))
    run = subprocess.run(
        [sys.executable, "-c", STARTUP], capture_output=True, text=True, check=True
    )
    rows.append(("from nothing to kernels that are cached", f"{float(run.stdout):.2f} s", "≤ 1 s"))
    for name, found, goal in rows:
        print(f"{name:44} {found:>44}   {goal}")


def resident(gpu: TimedGpu, volume: Volume, peak: float) -> list[tuple[str, str, str]]:
    """Give rows about pictures of a volume that lies on the device in one piece."""
    stage = GpuStage(Stage(volume), gpu)
    begin = time.perf_counter()
    stage.render(scene((64, 36)))
    ready = time.perf_counter() - begin
    chosen = scene((1920, 1080))
    lit = milliseconds(gpu, lambda: stage.render(chosen))
    share = fetches(volume, chosen) / (lit / 1e3) / GIGA / peak
    baked = milliseconds(gpu, lambda: stage.render(scene((1920, 1080), lighting="baked")))
    final = milliseconds(gpu, lambda: stage.render(scene((3840, 2160), spp=16)))
    return [
        ("full size to the device, with its occluder", f"{ready:.1f} s", "≤ 3 s"),
        ("1080p, lit", f"{lit:.1f} ms", "≤ 11 ms"),
        ("its reads beside the card's peak", f"{share:.0%}", "≥ 25 %"),
        ("1080p, baked", f"{baked:.1f} ms", "≤ 6 ms"),
        ("4K of 16 rays a pixel", f"{final / 1e3:.2f} s", "≤ 0.7 s"),
    ]


class TimedGpu(CudaGpu):
    """A card whose kernels are timed by its own clock."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[Any, Any]] = []

    def kernels(self, look: str, lighting: str, listen: Any) -> Any:
        return _Timed(super().kernels(look, lighting, listen), self)

    def mark(self) -> Any:
        import cupy

        event = cupy.cuda.Event()
        event.record(self._computing)
        return event

    def milliseconds(self) -> float:
        import cupy

        self.spans[-1][1].synchronize()
        total = sum(cupy.cuda.get_elapsed_time(*span) for span in self.spans)
        self.spans.clear()
        return float(total)


class _Timed:
    def __init__(self, kernels: Any, gpu: TimedGpu) -> None:
        self._kernels, self._gpu = kernels, gpu

    def launch(self, *arguments: Any) -> Any:
        begin = self._gpu.mark()
        event = self._kernels.launch(*arguments)
        self._gpu.spans.append((begin, self._gpu.mark()))
        return event


class CountingGpu(CudaGpu):
    """A card that counts what it reads of textures, slowly."""

    def kernels(self, look: str, lighting: str, listen: Any) -> Any:
        source = gpu_source(look, lighting, self.architecture)
        counting = replace(source, options=(*source.options, "-DOTZI_COUNT_FETCHES"))
        path = binary_path(counting, nvrtc_version(), compiled_by_nvrtc, listen)
        if (look, lighting) not in self._kernels:
            self._kernels[look, lighting] = self.loaded(path)
        return self._kernels[look, lighting]

    def count(self) -> int:
        """Give the reads since the kernels were loaded."""
        (kernels,) = self._kernels.values()
        found = np.zeros(1, np.uint64)
        place = kernels.module.get_global("n_fetches")
        self._computing.synchronize()
        place.copy_to_host(found.ctypes.data, found.nbytes)
        return int(found[0])


def fetches(volume: Volume, chosen: Any) -> int:
    gpu = CountingGpu()
    GpuStage(Stage(volume), gpu).render(chosen)
    return gpu.count()


def fetch_peak(gpu: TimedGpu, n_channels: int, dtype: Any) -> float:
    """Give the trilinear reads of a format, in G/s: of 64³ texels, which caches hold."""
    side = 64
    texture = gpu.texture((side, side, side), n_channels, np.dtype(dtype))
    source = GpuSource(
        PEAK, (), ("-std=c++17", f"-arch={gpu.architecture}", f"-DFETCHES={FETCHES}")
    )
    kernels = gpu.loaded(binary_path(source, nvrtc_version(), compiled_by_nvrtc, ignore))
    out = gpu.memory(THREADS * 4)
    name = "read_four" if n_channels == 4 else "read_one"
    arguments = (np.uint64(texture.handle), np.uint64(out.address), np.int32(side))

    def run() -> None:
        _Timed(kernels, gpu).launch(name, (THREADS // 128, 1, 1), (128, 1, 1), arguments)

    return THREADS * FETCHES / (milliseconds(gpu, run) / 1e3) / GIGA


def full_size() -> Volume:
    small = phantom(0.3)
    repeats = [-(-n // m) for n, m in zip(SHAPE, small.shape, strict=True)]
    z, y, x = (slice(n) for n in SHAPE)
    data = np.ascontiguousarray(np.tile(small.data, (*repeats, 1))[z, y, x])
    return Volume(data, np.ones(3), np.array(SHAPE, float), small.voxel_angstrom)


def scene(size: tuple[int, int], **quality: Any) -> Any:
    chosen = small_scene(Light(), **({"step": 0.5, "ao": 12, "shadow": 24} | quality))
    camera = replace(chosen.camera, distance=None)
    return replace(chosen, camera=camera, output=replace(chosen.output, size=size))


def milliseconds(gpu: TimedGpu, work: Callable[[], Any], repeats: int = 5) -> float:
    """Give the least time that the device computed."""
    work()
    gpu.milliseconds()
    found = []
    for _ in range(repeats):
        work()
        found.append(gpu.milliseconds())
    return min(found)


def best(work: Callable[[], Any], repeats: int = 3) -> float:
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return min(found)


if __name__ == "__main__":
    main()
