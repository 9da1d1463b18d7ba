"""Whether pictures can be made on a GPU here: the driver, CuPy, its compiler, and the card."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from otzi.errors import DeviceUnavailable
from otzi.memory import format_bytes

__all__ = ["CudaDevice", "find_cuda_device"]

_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
_INSTALL = "pip install 'otzi[cuda]'"
_LEAST_FREE_BYTES = 512 * 10**6
"""Less holds no picture of any volume that is worth the copy."""


@dataclass(frozen=True)
class CudaDevice:
    """A card that can be drawn on."""

    name: str
    architecture: str
    """As compilers call it: ``sm_90``."""
    free_bytes: int
    compiler: str
    """What compiles for it, with versions."""

    def __str__(self) -> str:
        return f"{self.name} ({format_bytes(self.free_bytes)} free)"


def find_cuda_device() -> CudaDevice:
    """Give the card that CUDA calls the first.

    Raises
    ------
    DeviceUnavailable
        If anything is missing: it says what, then a colon, then what to do.
    """
    if not _driver_is_here():
        raise DeviceUnavailable("no NVIDIA driver is here: install it where there is a card")
    cupy = _cupy()
    major, minor = _compiler_version(cupy)
    try:
        if not cupy.cuda.runtime.getDeviceCount():
            raise DeviceUnavailable(
                "CUDA sees no card: look at CUDA_VISIBLE_DEVICES and nvidia-smi"
            )
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        free_bytes, _ = cupy.cuda.runtime.memGetInfo()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceUnavailable(f"CUDA fails ({error}): update the NVIDIA driver") from error
    name = properties["name"].decode()
    capability = 10 * properties["major"] + properties["minor"]
    if capability not in cupy.cuda.nvrtc.getSupportedArchs():
        raise DeviceUnavailable(
            f"{name} is of architecture {capability}, which NVRTC {major}.{minor} does not know: "
            f"{_INSTALL} --upgrade"
        )
    if free_bytes < _LEAST_FREE_BYTES:
        raise DeviceUnavailable(
            f"{name} has {format_bytes(free_bytes)} free, a picture takes at least "
            f"{format_bytes(_LEAST_FREE_BYTES)}: end what else uses it"
        )
    compiler = f"CuPy {cupy.__version__}, NVRTC {major}.{minor}"
    return CudaDevice(name, f"sm_{capability}", int(free_bytes), compiler)


def _driver_is_here() -> bool:
    for name in _DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def _cupy() -> Any:
    try:
        return import_module("cupy")
    except ImportError as error:
        # Not only where it is not there: its message is many lines about its own libraries.
        first = next(iter(str(error).strip().splitlines()), "")
        raise DeviceUnavailable(f"CuPy cannot be loaded ({first}): {_INSTALL}") from error


def _compiler_version(cupy: Any) -> tuple[int, int]:
    try:
        major, minor = cupy.cuda.nvrtc.getVersion()
    except (RuntimeError, OSError, ImportError) as error:
        raise DeviceUnavailable(f"CuPy finds no compiler NVRTC: {_INSTALL}") from error
    return int(major), int(minor)
