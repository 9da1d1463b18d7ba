"""The kernel's source for a GPU, and what was compiled of it, kept for the next time.

A binary is for one look, one lighting, one architecture and one compiler: its name is a digest of
all of them. It lies in the same folder as the processor's, which is the user's alone.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otzi.events import Listener, Noted, ignore
from otzi_viewers.render.kernels.build import SOURCE, cache_folder
from otzi_viewers.render.kernels.params import layout_assertions

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GpuSource", "binary_path", "gpu_source"]

_ENTRY = "gpu.cu"
_LOOKS = {
    "physical": "PHYSICAL",
    "viewer": "VIEWER",
    "dvr": "PLAIN",
    "mip": "MAXIMUM",
    "iso": "SURFACE",
}
_LIGHTINGS = {"mc": "PROBES", "baked": "BAKED", "cone": "CONE"}


@dataclass(frozen=True)
class GpuSource:
    """What a compiler is given."""

    text: str
    headers: tuple[tuple[str, str], ...]
    """Name and text of each."""
    options: tuple[str, ...]

    def digest(self, compiler: str) -> str:
        """Give what tells binaries apart, by a compiler of this name and version."""
        digest = hashlib.sha256(compiler.encode())
        for part in (self.text, *(word for header in self.headers for word in header)):
            digest.update(part.encode() + b"\0")
        for option in self.options:
            digest.update(option.encode() + b"\0")
        return digest.hexdigest()


def gpu_source(look: str, lighting: str, architecture: str) -> GpuSource:
    """Give the source for one look and lighting, which checks the layout of its parameters.

    `architecture` is that of the card, as ``sm_90``: nothing is left to its driver to compile.
    """
    headers = sorted(SOURCE.glob("*.cuh"))
    return GpuSource(
        text=(SOURCE / _ENTRY).read_text() + layout_assertions(),
        headers=tuple((header.name, header.read_text()) for header in headers),
        options=(
            "-std=c++17",
            "-default-device",
            f"-arch={architecture}",
            f"-DOTZI_LOOK={_LOOKS[look]}",
            f"-DOTZI_LIGHTING={_LIGHTINGS[lighting]}",
        ),
    )


def binary_path(
    source: GpuSource,
    compiler: str,
    compile_: Callable[[GpuSource], bytes],
    listen: Listener = ignore,
) -> Path:
    """Give the file of a compiled source; made now where it never was.

    Parameters
    ----------
    source
        What to compile.
    compiler
        Name and version of what `compile_` calls.
    compile_
        Gives the binary.
    listen
        Told where it compiles.
    """
    path = cache_folder() / f"march-{source.digest(compiler)[:24]}.cubin"
    if path.exists():
        return path
    listen(Noted("compiling the renderer for this GPU, once"))
    # Under another name, then renamed: many may begin at once, and each makes a whole.
    handle, name = tempfile.mkstemp(suffix=".cubin", prefix=f"{path.stem}.", dir=path.parent)
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(compile_(source))
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    return path
