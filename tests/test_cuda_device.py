"""What is missing for a GPU is said, in the order in which it has to be mended."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from otzi import cuda_device
from otzi.cuda_device import find_cuda_device
from otzi.errors import DeviceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable


class CudaError(RuntimeError):
    pass


def fake_cupy(**changes) -> SimpleNamespace:
    """A CuPy that sees one card."""
    what = {
        "count": lambda: 1,
        "properties": {"name": b"NVIDIA Test 9000", "major": 9, "minor": 0},
        "free": 8 * 10**9,
        "version": lambda: (12, 9),
    } | changes
    runtime = SimpleNamespace(
        getDeviceCount=what["count"],
        getDeviceProperties=lambda _: what["properties"],
        memGetInfo=lambda: (what["free"], 10**10),
        CUDARuntimeError=CudaError,
    )
    nvrtc = SimpleNamespace(getVersion=what["version"], getSupportedArchs=lambda: (80, 90))
    cuda = SimpleNamespace(runtime=runtime, nvrtc=nvrtc)
    return SimpleNamespace(__version__="14.2.0", cuda=cuda)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function that puts a driver and a CuPy there."""

    def put(cupy: object, *, driver: bool = True) -> None:
        monkeypatch.setattr(cuda_device, "_driver_is_here", lambda: driver)
        monkeypatch.setitem(sys.modules, "cupy", cupy)

    return put


def test_a_card_is_named_with_what_is_free(install: Callable[..., None]) -> None:
    install(fake_cupy())
    found = find_cuda_device()
    assert str(found) == "NVIDIA Test 9000 (8.0 GB free)"
    assert (found.architecture, found.compiler) == ("sm_90", "CuPy 14.2.0, NVRTC 12.9")


def _raise(error: Exception) -> object:
    raise error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": lambda: 0}, "sees no card: look at CUDA_VISIBLE_DEVICES"),
        ({"count": lambda: _raise(CudaError("driver too old"))}, "driver too old.*: update"),
        ({"version": lambda: _raise(RuntimeError("x"))}, r"no compiler NVRTC: pip install 'otzi\["),
        ({"free": 10**8}, r"100.0 MB free.* at least 512.0 MB: end what else"),
        (
            {"properties": {"name": b"Tomorrow", "major": 15, "minor": 2}},
            r"architecture 152, which NVRTC 12\.9 does not know: .*--upgrade",
        ),
    ],
)
def test_what_is_missing_is_said(install: Callable[..., None], changes: dict, words: str) -> None:
    install(fake_cupy(**changes))
    with pytest.raises(DeviceUnavailable, match=words):
        find_cuda_device()


def test_the_driver_comes_before_the_library(install: Callable[..., None]) -> None:
    install(None, driver=False)
    with pytest.raises(DeviceUnavailable, match="no NVIDIA driver is here: install it"):
        find_cuda_device()
    install(None)
    with pytest.raises(DeviceUnavailable, match=r"CuPy cannot be loaded.*: pip install 'otzi\[cu"):
        find_cuda_device()


def test_the_driver_is_looked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str) -> None:
        asked.append(name)
        if name != "nvcuda.dll":
            raise OSError(name)

    monkeypatch.setattr(cuda_device.ctypes, "CDLL", load)
    assert cuda_device._driver_is_here()
    assert asked == ["libcuda.so.1", "nvcuda.dll"]
