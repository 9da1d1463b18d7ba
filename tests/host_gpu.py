"""A GPU without a GPU: ``gpu.cu`` compiled for the processor, and two queues that may dawdle.

All that a picture does on a device is done, with the real kernels: only texture units, a scheduler
and CuPy are not there. Work is done when somebody waits for it, or at once, queue by queue: a place
that is written before its reader is through, or read before it is written, shows in the picture.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otzi_viewers.render.gpu import OutOfGpuMemory
from otzi_viewers.render.kernels.build import SOURCE, compiler
from otzi_viewers.render.kernels.params import layout_assertions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["HostGpu", "host_kernels"]

_HEADER = Path(__file__).with_name("host_cuda.h")
KERNELS = ("begin", "march", "find_open", "expose", "develop", "bake")


def host_kernels(folder: Path) -> ctypes.CDLL:
    """Give the kernels of ``gpu.cu``, compiled once in a folder that processes may share."""
    text = (
        f'#include "{_HEADER}"\n#define __CUDACC__\n#include "{SOURCE / "gpu.cu"}"\n'
        + layout_assertions()
        + "".join(f"HOST_KERNEL({name})\n" for name in KERNELS)
    )
    content = b"".join(path.read_bytes() for path in (_HEADER, *sorted(SOURCE.glob("*.cu*"))))
    digest = hashlib.sha256(text.encode() + content).hexdigest()[:16]
    made = folder / f"host-{digest}.so"
    if not made.exists():
        part = folder / f"host-{digest}.{os.getpid()}"
        source = part.with_suffix(".cpp")
        source.write_text(text)
        words = ("-std=c++17", "-O2", "-shared", "-fPIC", f"-I{SOURCE}")
        subprocess.run([compiler(), *words, "-o", part, source], check=True, capture_output=True)
        part.replace(made)
    return ctypes.CDLL(str(made))


class _HostTexture(ctypes.Structure):
    _fields_ = (
        ("values", ctypes.c_uint64),
        ("shape", ctypes.c_longlong * 3),
        ("n_channels", ctypes.c_longlong),
        ("item_bytes", ctypes.c_longlong),
        ("weight_steps", ctypes.c_double),
    )


class _Texture:
    def __init__(self, values: NDArray[Any], weight_steps: float) -> None:
        self.values = values
        self._told = _HostTexture(
            values.ctypes.data,
            values.shape[:3],
            values.shape[3],
            values.itemsize,
            weight_steps,
        )

    @property
    def handle(self) -> int:
        return ctypes.addressof(self._told)


class _Memory:
    def __init__(self, n_bytes: int) -> None:
        # What was there before is nobody's.
        self.values = np.full(n_bytes, 0xAB, np.uint8)

    @property
    def address(self) -> int:
        return int(self.values.ctypes.data)


@dataclass
class _Queue:
    is_eager: bool
    todo: list[tuple[Callable[[], None], _Event | None]] = field(default_factory=list)
    n_done: int = 0

    def add(self, work: Callable[[], None], after: _Event | None = None) -> _Event:
        self.todo.append((work, after))
        event = _Event(self, len(self.todo))
        if self.is_eager:
            event.wait()
        return event


@dataclass
class _Event:
    queue: _Queue
    end: int

    def wait(self) -> None:
        while self.queue.n_done < self.end:
            work, after = self.queue.todo[self.queue.n_done]
            if after is not None:
                after.wait()
            self.queue.todo[self.queue.n_done] = (work, None)
            self.queue.n_done += 1
            work()


class _Kernels:
    def __init__(self, gpu: HostGpu) -> None:
        self._gpu = gpu

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        after: _Event | None = None,
    ) -> _Event:
        held = [np.array(argument).tobytes() for argument in arguments]
        self._gpu.launched.append((name, grid, block))

        def work() -> None:
            places = (ctypes.c_void_p * len(held))(
                *(ctypes.cast(ctypes.c_char_p(a), ctypes.c_void_p).value for a in held)
            )
            sizes = (ctypes.c_size_t * len(held))(*map(len, held))
            triples = ((ctypes.c_uint * 3)(*triple) for triple in (grid, block))
            kernel = getattr(self._gpu.library, f"launch_{name}")
            wrong = kernel(*triples, places, sizes, len(held))
            assert wrong == 0, f"{name}: argument {wrong} is not as the kernel declares it"

        return self._gpu.computing.add(work, after)


class HostGpu:
    """A `Gpu` that is a processor.

    Parameters
    ----------
    library
        See `host_kernels`.
    copies_at_once, computes_at_once
        Whether work is done when it is asked for, or only once it is waited for.
    capacity_bytes
        Of its memory.
    promised_bytes
        What it says is free; all that is if None.
    weight_steps
        256 to interpolate as coarsely as the texture units of a GPU.
    """

    name = "host"

    def __init__(
        self,
        library: ctypes.CDLL,
        *,
        copies_at_once: bool = True,
        computes_at_once: bool = True,
        capacity_bytes: int = 10**9,
        promised_bytes: int | None = None,
        weight_steps: float = 0,
    ) -> None:
        self.library = library
        self.computing, self.copying = _Queue(computes_at_once), _Queue(copies_at_once)
        self.capacity_bytes, self.promised_bytes = capacity_bytes, promised_bytes
        self.used_bytes = self.most_bytes = 0
        self.weight_steps = weight_steps
        self.launched: list[tuple[str, tuple[int, int, int], tuple[int, int, int]]] = []
        self.n_filled = 0
        self.packed_shapes: list[tuple[int, int, int]] = []

    def free_bytes(self) -> int:
        left = self.capacity_bytes - self.used_bytes
        return left if self.promised_bytes is None else self.promised_bytes

    def kernels(self, look: str, lighting: str, listen: object) -> _Kernels:
        return _Kernels(self)

    def memory(self, n_bytes: int) -> _Memory:
        made = _Memory(n_bytes)
        self._account(made, n_bytes)
        return made

    def texture(self, shape: tuple[int, int, int], n_channels: int, dtype: np.dtype) -> _Texture:
        if n_channels == 4:
            self.packed_shapes.append(shape)
        values = np.full((*shape, n_channels), 0xAB, dtype)
        made = _Texture(values, self.weight_steps)
        self._account(made, values.nbytes)
        return made

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> NDArray[Any]:
        return np.full(shape, 0xCD, dtype)

    def fill(self, texture: _Texture, values: NDArray[Any], after: _Event | None = None) -> _Event:
        self.n_filled += 1
        assert values.flags.c_contiguous
        there = texture.values.reshape(*texture.values.shape[:2], -1)
        assert values.shape == there.shape
        assert values.dtype == there.dtype
        return self.copying.add(lambda: np.copyto(there, values), after)

    def fill_from(self, texture: _Texture, memory: _Memory, shape: tuple[int, int, int]) -> None:
        there = texture.values.reshape(*texture.values.shape[:2], -1)
        self.computing.add(lambda: np.copyto(there, memory.values.reshape(shape)))

    def write(self, memory: _Memory, values: NDArray[Any]) -> None:
        flat = np.frombuffer(values.tobytes(), np.uint8)
        self.computing.add(lambda: np.copyto(memory.values[: flat.size], flat)).wait()

    def read(self, memory: _Memory, into: NDArray[Any]) -> None:
        def work() -> None:
            into.reshape(-1).view(np.uint8)[:] = memory.values[: into.nbytes]

        self.computing.add(work).wait()

    def _account(self, made: object, n_bytes: int) -> None:
        if self.used_bytes + n_bytes > self.capacity_bytes:
            raise OutOfGpuMemory(f"{n_bytes} bytes")
        self.used_bytes += n_bytes
        self.most_bytes = max(self.most_bytes, self.used_bytes)
        weakref.finalize(made, self._free, n_bytes)

    def _free(self, n_bytes: int) -> None:
        self.used_bytes -= n_bytes
