"""The source for a GPU: compiled by the compiler that users have, kept, and checked."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import pytest

from otzi.errors import ConfigurationError
from otzi_viewers.render.cuda import compiled_by_nvrtc, nvrtc_version
from otzi_viewers.render.kernels import gpu_build
from otzi_viewers.render.kernels.gpu_build import binary_path, gpu_source
from otzi_viewers.render.kernels.params import LIGHTINGS, LOOKS, Params, layout_assertions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAYS = [
    *(("physical", lighting) for lighting in LIGHTINGS),
    *((look, "mc") for look in LOOKS if look != "physical"),
]
KERNELS = ("begin", "march", "find_open", "expose", "develop", "bake")


@pytest.fixture
def nvrtc(require: Callable[[str, str], None]) -> str:
    """The compiler's version; it needs neither a card nor a driver."""
    try:
        return nvrtc_version()
    except (ImportError, RuntimeError, OSError) as error:
        require("nvrtc", f"CuPy with NVRTC is not here: {str(error).splitlines()[0]}")
        raise


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "otzi"


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("look", "lighting"), WAYS)
def test_it_compiles_for_a_card(nvrtc: str, look: str, lighting: str, architecture: str) -> None:
    binary = compiled_by_nvrtc(gpu_source(look, lighting, architecture))
    assert binary[:4] == b"\x7fELF"
    for name in KERNELS:
        assert b".text." + name.encode() + b"\0" in binary


def test_what_it_compiles_to_is_for_one_look_alone(nvrtc: str) -> None:
    lit, plain = (
        len(compiled_by_nvrtc(gpu_source(look, "mc", "sm_90"))) for look in ("physical", "mip")
    )
    assert plain < lit


class _Moved(ctypes.Structure):
    """The parameters with two neighbours swapped: of the same length, and wrong."""

    _fields_ = tuple(
        {"step": ("gate", kind), "gate": ("step", kind)}.get(name, (name, kind))
        for name, kind in Params._fields_
    )


def test_a_field_that_moved_is_an_error_of_the_compiler(
    nvrtc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert layout_assertions().count("static_assert") == len(Params._fields_) + 2 + 5
    assert ctypes.sizeof(_Moved) == ctypes.sizeof(Params)
    monkeypatch.setattr("otzi_viewers.render.kernels.params.Params", _Moved)
    with pytest.raises(ConfigurationError, match=r"cannot compile the renderer.*static assertion"):
        compiled_by_nvrtc(gpu_source("mip", "mc", "sm_90"))


def test_it_is_compiled_once_and_kept_for_this_user(own_cache: Path) -> None:
    made, told = [], []

    def compile_(source: object) -> bytes:
        made.append(source)
        return b"binary"

    source = gpu_source("physical", "mc", "sm_90")
    path = binary_path(source, "nvrtc 12.9", compile_, told.append)
    assert path.parent == own_cache
    assert path.read_bytes() == b"binary"
    assert binary_path(source, "nvrtc 12.9", compile_, told.append) == path
    assert (len(made), len(told)) == (1, 1)
    assert [p.name for p in own_cache.iterdir()] == [path.name]


def test_another_look_card_compiler_or_source_is_another_binary(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = {("physical", "mc", "sm_90"), ("physical", "cone", "sm_90"), ("mip", "mc", "sm_90")}
    ways.add(("physical", "mc", "sm_80"))
    digests = {gpu_source(*way).digest("nvrtc 12.9") for way in ways}
    first = gpu_source("physical", "mc", "sm_90")
    digests.add(first.digest("nvrtc 13.0"))
    monkeypatch.setattr(gpu_build, "layout_assertions", lambda: "// another\n")
    digests.add(gpu_source("physical", "mc", "sm_90").digest("nvrtc 12.9"))
    assert len(digests) == 6


def test_a_compiler_that_fails_leaves_nothing(own_cache: Path) -> None:
    def fail(source: object) -> bytes:
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError, match="no"):
        binary_path(gpu_source("mip", "mc", "sm_90"), "nvrtc 12.9", fail)
    assert not list(own_cache.iterdir())
