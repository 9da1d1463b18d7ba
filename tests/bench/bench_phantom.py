"""Phantoms of the default size, noise, files and strokes included, one after another."""

from __future__ import annotations

import tempfile
import time

from otzi.memory import format_bytes, peak_memory_bytes, usable_cores
from otzi_pipelines.phantom.make import make_phantoms
from otzi_pipelines.phantom.settings import PhantomSettings

VOLUMES = 4


def main() -> None:
    settings = PhantomSettings()
    with tempfile.TemporaryDirectory() as folder:
        make_phantoms(folder, settings)  # whatever is loaded or planned only once
        wall, cpu = time.perf_counter(), time.process_time()
        make_phantoms(folder, settings, count=1 + VOLUMES)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = " × ".join(map(str, settings.size))
    print(f"phantoms of {size} voxels, {usable_cores()} cores")
    print(f"  {wall / VOLUMES:.1f} s for each, {cpu / VOLUMES:.1f} s of processor time")
    print(f"  peak memory of the process {format_bytes(peak_memory_bytes())}")


if __name__ == "__main__":
    main()
