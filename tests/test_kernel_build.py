"""The kernel compiled: once for many, for this processor alone; clear words where it cannot."""

from __future__ import annotations

import ctypes
import re
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otzi.errors import ConfigurationError
from otzi_viewers.render.kernels import build
from otzi_viewers.render.kernels.build import (
    SOURCE,
    cache_folder,
    compiler,
    kernel_library,
    library_path,
)
from otzi_viewers.render.kernels.params import RAY, Params, expected_layout
from otzi_viewers.render.reference_fields import keyed_uniform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

words = st.integers(0, 2**32 - 1)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no kernel in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library_path.cache_clear()
    yield tmp_path / "otzi"
    library_path.cache_clear()


@given(words, st.integers(0, 4095), words, words, st.integers(0, 5))
def test_draws_are_those_of_the_written_hash(
    seed: int, sample: int, step: int, pixel: int, number: int
) -> None:
    library = kernel_library()
    found = library.draw(library.key_of(seed, sample, step, pixel), number)
    assert 0 <= found < 1
    assert found == keyed_uniform(seed, sample, step, np.array([pixel]), number)[0]


def test_it_is_compiled_once_and_kept_for_this_user(own_cache: Path) -> None:
    told: list[object] = []
    kernel_library(told.append)
    (path,) = own_cache.iterdir()
    made = path.stat().st_mtime_ns
    assert len(told) == 1
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700
    library_path.cache_clear()
    kernel_library(told.append)
    assert len(told) == 1
    assert path.stat().st_mtime_ns == made


def test_many_that_begin_at_once_all_get_a_whole_one(own_cache: Path) -> None:
    code = "from otzi_viewers.render.kernels.build import kernel_library as k; k().draw(1, 2)"

    def begin(_: int) -> int:
        return subprocess.run([sys.executable, "-c", code], check=False).returncode

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(begin, range(4))) == [0] * 4
    assert len(list(own_cache.iterdir())) == 1


@pytest.mark.parametrize("change", ["_processor_features", "source", "flags"])
def test_a_kernel_of_another_processor_or_source_is_not_used(
    own_cache: Path, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernel_library()
    if change == "source":
        other = tmp_path / "source"
        shutil.copytree(SOURCE, other)
        (other / "march.cuh").write_text((SOURCE / "march.cuh").read_text() + "\n// changed\n")
        monkeypatch.setattr(build, "SOURCE", other)
    elif change == "flags":
        monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-DOTHER"))
    else:
        monkeypatch.setattr(build, "_processor_features", lambda: "avx1024")
    library_path.cache_clear()
    kernel_library()
    assert len(list(own_cache.iterdir())) == 2


def test_a_folder_that_others_may_write_is_not_trusted(own_cache: Path) -> None:
    own_cache.mkdir()
    own_cache.chmod(0o777)
    assert cache_folder() != own_cache


def test_no_compiler_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        ConfigurationError, match=r"looked for \$CXX, c\+\+, g\+\+.*apt-get install"
    ):
        compiler()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigurationError, match="CXX=no-such-compiler"):
        compiler()


def test_a_compiler_that_fails_leaves_nothing(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(shutil.which("false")))
    with pytest.raises(ConfigurationError, match="cannot compile the renderer"):
        kernel_library()
    assert not list(own_cache.iterdir())


def test_the_layout_is_checked(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    assert expected_layout()[:2] == [ctypes.sizeof(Params), 36]
    assert RAY.itemsize == 36
    monkeypatch.setattr(build, "expected_layout", lambda: [1, 2, 3])
    with pytest.raises(ConfigurationError, match="lays out its parameters"):
        kernel_library()


@pytest.mark.parametrize(
    ("look", "lighting"),
    [*(("PHYSICAL", way) for way in ("PROBES", "BAKED", "CONE"))]
    + [(look, "PROBES") for look in ("VIEWER", "PLAIN", "MAXIMUM", "SURFACE")],
)
def test_the_same_source_compiles_for_a_gpu_within_its_budget(
    look: str, lighting: str, tmp_path: Path, require: Callable[[str, str], None]
) -> None:
    """At most 80 registers and no spills: too few rays at once would not keep a GPU busy."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        require("nvcc", "nvcc is not here")
    made = tmp_path / "march.cubin"
    defined = (f"-DOTZI_LOOK={look}", f"-DOTZI_LIGHTING={lighting}")
    run = subprocess.run(
        [str(nvcc), "-cubin", "-arch=sm_90", *defined, "-Xptxas=-v", "-o", made, SOURCE / "gpu.cu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    used = [int(count) for count in re.findall(r"Used (\d+) registers", run.stderr)]
    assert used
    assert max(used) <= 80
    assert set(re.findall(r"(\d+) bytes spill stores", run.stderr)) == {"0"}
