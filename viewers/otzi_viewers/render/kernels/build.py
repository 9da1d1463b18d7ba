"""The kernel compiled for this processor, on first use, and kept for the next.

Native code of one processor ends another's program, and home folders are shared between unlike
machines: the name of what is kept is a digest of source, compiler, flags and the processor's
features. It is code that gets loaded, so the folder is the user's alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from otzi.errors import ConfigurationError, NoCompiler
from otzi.events import Listener, Noted, ignore
from otzi_viewers.render.kernels.params import expected_layout

__all__ = ["SOURCE", "cache_folder", "compiler", "kernel_library", "library_path"]

SOURCE = Path(__file__).parent
_ENTRY = "processor.cpp"
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC"),
    # Change no bit: nobody reads errno or the flags of the floating-point unit.
    *("-fno-math-errno", "-fno-trapping-math"),
)
_NAMES = ("c++", "g++", "clang++")
_REMEDY = "install g++ (Debian: apt-get install g++), or set CXX to a compiler"


def kernel_library(listen: Listener = ignore) -> ctypes.CDLL:
    """Give the kernel, compiled now where it never was; looked for once in a process.

    Raises
    ------
    ConfigurationError
        If there is no compiler, it fails, or what it made does not fit this release.
    """
    path = library_path()
    if not path.exists():
        listen(Noted("compiling the renderer for this processor, once"))
        _compile(path)
    return _loaded(path)


@cache
def library_path() -> Path:
    """Give where the kernel lies, or will: for this source, compiler and processor."""
    return cache_folder() / f"march-{_digest(compiler())[:24]}.so"


@cache
def _loaded(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    sizes = (ctypes.c_size_t * 64)()
    found = list(sizes[: library.layout(sizes)])
    if found != expected_layout():
        raise ConfigurationError(
            f"{path} lays out its parameters as {found}, expected {expected_layout()}: remove it"
        )
    library.march.restype = None
    library.probe_occlusion.restype = library.probe_shadow.restype = ctypes.c_float
    library.key_of.restype = ctypes.c_uint32
    library.draw.restype = ctypes.c_float
    return library


def compiler() -> str:
    """Give the C++ compiler: that of ``CXX``, or the first there is.

    Raises
    ------
    NoCompiler
        If there is none.
    """
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else _NAMES:
        if found := shutil.which(name):
            return found
    looked = f"CXX={asked}" if asked else ", ".join(("$CXX", *_NAMES))
    raise NoCompiler(f"no C++ compiler, looked for {looked}: {_REMEDY}")


def cache_folder() -> Path:
    """Give the folder of compiled kernels, for this user alone; a temporary one where home is not.

    ``XDG_CACHE_HOME``, otherwise ``~/.cache``.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (home / "otzi", Path(tempfile.gettempdir()) / f"otzi-{os.getuid()}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
        except OSError:
            continue
        others = stat.S_IMODE(found.st_mode) & 0o022
        if found.st_uid == os.getuid() and not others and os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="otzi-"))


def _digest(program: str) -> str:
    version = subprocess.run([program, "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(version)
    for part in (program, *_FLAGS, platform.machine(), _processor_features()):
        digest.update(part.encode() + b"\0")
    for path in sorted(SOURCE.glob("*.c*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _processor_features() -> str:
    """Give the processor's features; its name and its system's where these are not told."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.version()
    told = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(told)}))


def _compile(path: Path) -> None:
    """Compile under another name, then rename: many may begin at once, and each makes a whole."""
    program = compiler()
    handle, name = tempfile.mkstemp(suffix=".so", prefix=f"{path.stem}.", dir=path.parent)
    os.close(handle)
    made = Path(name)
    try:
        command = [program, *_FLAGS, "-o", str(made), str(SOURCE / _ENTRY)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            first = next(iter(run.stderr.strip().splitlines()), f"exit {run.returncode}")
            raise ConfigurationError(f"{program} cannot compile the renderer ({first}): {_REMEDY}")
        made.chmod(0o700)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
