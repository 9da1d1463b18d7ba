"""A GPU of NVIDIA, through CuPy: compiled at run time, for this card alone.

None of CuPy's own kernels is used: of the CUDA toolkit only the compiler NVRTC is needed.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi.errors import ConfigurationError
from otzi_viewers.render.gpu import OutOfGpuMemory
from otzi_viewers.render.kernels.gpu_build import GpuSource, binary_path, gpu_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from otzi.box import Zyx
    from otzi.events import Listener

__all__ = ["CudaGpu", "compiled_by_nvrtc", "nvrtc_version"]

_OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation."""


def _cupy() -> Any:
    return import_module("cupy")


def nvrtc_version() -> str:
    """Give what tells compilers apart."""
    cupy = _cupy()
    return f"cupy {cupy.__version__}, nvrtc {cupy.cuda.nvrtc.getVersion()}"


def compiled_by_nvrtc(source: GpuSource) -> bytes:
    """Give the binary of a source; neither a card nor a driver is needed for it.

    Raises
    ------
    ConfigurationError
        If the compiler refuses it.
    """
    nvrtc = _cupy().cuda.nvrtc
    names = [name.encode() for name, _ in source.headers]
    texts = [text.encode() for _, text in source.headers]
    program = nvrtc.createProgram(source.text, "gpu.cu", texts, names)
    try:
        nvrtc.compileProgram(program, source.options)
        binary: bytes = nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        lines = str(nvrtc.getProgramLog(program)).strip().splitlines()
        first = lines[0] if lines else str(error)
        raise ConfigurationError(
            f"{nvrtc_version()} cannot compile the renderer ({first}): update 'otzi[cuda]', or "
            "draw with --device cpu"
        ) from error
    finally:
        nvrtc.destroyProgram(program)
    return binary


class _Event:
    """A place in a queue, after all that is in it now."""

    def __init__(self, stream: Any) -> None:
        cupy = _cupy()
        self.event = cupy.cuda.Event(disable_timing=True)
        self.event.record(stream)

    def wait(self) -> None:
        self.event.synchronize()


class _Memory:
    def __init__(self, n_bytes: int) -> None:
        cupy = _cupy()
        with _memory_errors():
            # Not of CuPy's pool, which would keep what is given back.
            self.pointer = cupy.cuda.MemoryPointer(cupy.cuda.Memory(n_bytes), 0)

    @property
    def address(self) -> int:
        return int(self.pointer.ptr)


class _Texture:
    def __init__(self, shape: Zyx, n_channels: int, dtype: np.dtype[Any]) -> None:
        runtime, texture = _cupy().cuda.runtime, _cupy().cuda.texture
        bits = [8 * dtype.itemsize if channel < n_channels else 0 for channel in range(4)]
        channels = texture.ChannelFormatDescriptor(*bits, runtime.cudaChannelFormatKindUnsigned)
        depth, height, width = shape
        with _memory_errors():
            self.array = texture.CUDAarray(channels, width, height, depth)
            resource = texture.ResourceDescriptor(runtime.cudaResourceTypeArray, cuArr=self.array)
            reading = texture.TextureDescriptor(
                (runtime.cudaAddressModeClamp,) * 3,
                runtime.cudaFilterModeLinear,
                runtime.cudaReadModeNormalizedFloat,
                normalizedCoords=0,
            )
            self._object = texture.TextureObject(resource, reading)

    @property
    def handle(self) -> int:
        return int(self._object.ptr)


class _Kernels:
    def __init__(self, path: str, stream: Any) -> None:
        cupy = _cupy()
        self.module = cupy.RawModule(path=path)
        self._functions: dict[str, Any] = {}
        self._stream = stream

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic[Any]],
        after: Any = None,
    ) -> _Event:
        if after is not None:
            self._stream.wait_event(after.event)
        if name not in self._functions:
            self._functions[name] = self.module.get_function(name)
        with self._stream:
            self._functions[name](grid, block, tuple(arguments))
        return _Event(self._stream)


class CudaGpu:
    """The card that CUDA calls the first: see `Gpu`."""

    def __init__(self) -> None:
        cupy = _cupy()
        self._computing = cupy.cuda.Stream(non_blocking=True)
        self._copying = cupy.cuda.Stream(non_blocking=True)
        self._kernels: dict[tuple[str, str], _Kernels] = {}

    @property
    def name(self) -> str:
        """As its maker calls it."""
        cupy = _cupy()
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        return str(properties["name"].decode())

    @property
    def architecture(self) -> str:
        """As compilers call it."""
        cupy = _cupy()
        return f"sm_{cupy.cuda.Device().compute_capability}"

    def free_bytes(self) -> int:
        """Give how much of its memory nobody uses."""
        cupy = _cupy()
        free, _ = cupy.cuda.runtime.memGetInfo()
        return int(free)

    def kernels(self, look: str, lighting: str, listen: Listener) -> _Kernels:
        """Give kernels, compiled where they never were: see `Gpu.kernels`."""
        if (look, lighting) not in self._kernels:
            source = gpu_source(look, lighting, self.architecture)
            path = binary_path(source, nvrtc_version(), compiled_by_nvrtc, listen)
            self._kernels[look, lighting] = self.loaded(path)
        return self._kernels[look, lighting]

    def loaded(self, path: Path) -> _Kernels:
        """Give the kernels of a binary."""
        return _Kernels(str(path), self._computing)

    def memory(self, n_bytes: int) -> _Memory:
        """Give memory: see `Gpu.memory`."""
        return _Memory(n_bytes)

    def texture(self, shape: Zyx, n_channels: int, dtype: np.dtype[Any]) -> _Texture:
        """Give a texture: see `Gpu.texture`."""
        return _Texture(shape, n_channels, dtype)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Give an array: see `Gpu.pinned`."""
        cupy = _cupy()
        count = int(np.prod(shape))
        with _memory_errors():
            # Not of CuPy's pool, which rounds up to the next power of two.
            memory = cupy.cuda.PinnedMemory(count * dtype.itemsize)
        block = cupy.cuda.PinnedMemoryPointer(memory, 0)
        return np.frombuffer(block, dtype, count).reshape(shape)

    def fill(self, texture: Any, values: NDArray[Any], after: Any = None) -> _Event:
        """Begin to copy: see `Gpu.fill`."""
        if after is not None:
            self._copying.wait_event(after.event)
        texture.array.copy_from(values, self._copying)
        return _Event(self._copying)

    def fill_from(self, texture: Any, memory: Any, shape: tuple[int, int, int]) -> None:
        """Copy: see `Gpu.fill_from`."""
        cupy = _cupy()
        values = cupy.ndarray(shape, np.uint8, memory.pointer)
        texture.array.copy_from(values, self._computing)

    def write(self, memory: Any, values: NDArray[Any]) -> None:
        """Copy to the device: see `Gpu.write`."""
        memory.pointer.copy_from_host_async(values.ctypes.data, values.nbytes, self._computing)
        self._computing.synchronize()

    def read(self, memory: Any, into: NDArray[Any]) -> None:
        """Copy from the device: see `Gpu.read`."""
        memory.pointer.copy_to_host_async(into.ctypes.data, into.nbytes, self._computing)
        self._computing.synchronize()


@contextmanager
def _memory_errors() -> Iterator[None]:
    cupy = _cupy()
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise OutOfGpuMemory(str(error)) from error
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status != _OUT_OF_MEMORY:
            raise
        raise OutOfGpuMemory(str(error)) from error
