"""Image features of a block beside scikit-image and ilastik's own libraries, in CPU-seconds.

Best of three rounds, the implementations taking turns. Otzi reads the block with its halo and gives
all 61 channels, as do vigra and fastfilters (without a halo, where they are importable);
scikit-image gives 25, at sigma 0.5 to 8. Then what the compiler takes, and what a second thread
gives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.feature import multiscale_basic_features

from otzi.box import Box
from otzi.pseudo.bank import SCALES, FeatureBank

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BLOCK = (128, 128, 128)
ROUNDS = 3
BANK = FeatureBank()
INNER = Box.whole(BLOCK)
HELD = INNER.grow(BANK.halo_voxels)
FIRST_USE = """
import time
import numpy as np
from otzi.pseudo.bank import FeatureBank
start = time.process_time()
FeatureBank().compute(np.zeros((36, 36, 36), np.float32))
print(time.process_time() - start)
"""


def by_otzi(volume: NDArray[np.float32]) -> None:
    for _ in BANK.slabs(volume, HELD, INNER):
        pass


def by_scikit_image(volume: NDArray[np.float32]) -> None:
    multiscale_basic_features(volume[INNER.within(HELD)], sigma_min=0.5, sigma_max=8)


def by_library(library: Any, volume: NDArray[np.float32]) -> None:
    """Compute the same channels by vigra's functions, which fastfilters has, too."""
    block = np.ascontiguousarray(volume[INNER.within(HELD)])
    for scale in SCALES:
        f = min(scale, 1.0)
        sigma = scale if scale <= 1 else (scale**2 - 1) ** 0.5
        image = library.gaussianSmoothing(block, sigma, window_size=3.5)
        smoothed = library.gaussianSmoothing(image, f, window_size=2.0)
        if scale > SCALES[0]:
            library.laplacianOfGaussian(image, f, window_size=2.0)
            library.gaussianGradientMagnitude(image, f, window_size=2.0)
            np.subtract(smoothed, library.gaussianSmoothing(image, 0.66 * f, window_size=2.0))
            library.structureTensorEigenvalues(image, f, 0.5 * f, window_size=2.0)
            library.hessianOfGaussianEigenvalues(image, f, window_size=2.0)


def peers() -> dict[str, Callable[[NDArray[np.float32]], None]]:
    found: dict[str, Callable[[NDArray[np.float32]], None]] = {"scikit-image": by_scikit_image}
    for name, module in {"vigra": "vigra.filters", "fastfilters": "fastfilters"}.items():
        try:
            found[name] = partial(by_library, import_module(module))
        except ImportError:
            print(f"  {name} is not importable here: left out")
    return found


def cpu_seconds(
    compute: Callable[[NDArray[np.float32]], None], volume: NDArray[np.float32]
) -> float:
    start = time.process_time()
    compute(volume)
    return time.process_time() - start


def wall_seconds(n_threads: int, volume: NDArray[np.float32]) -> float:
    with ThreadPoolExecutor(n_threads) as pool:
        start = time.perf_counter()
        list(pool.map(by_otzi, [volume] * 4))
        return time.perf_counter() - start


def first_use_seconds(cache: str) -> float:
    command = [sys.executable, "-c", FIRST_USE]
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout)


def main() -> None:
    volume = np.random.default_rng(0).normal(0, 1, HELD.shape).astype(np.float32)
    print(f"features of a block of {' × '.join(map(str, BLOCK))} voxels")
    implementations = {"otzi": by_otzi} | peers()
    by_otzi(volume)
    best = dict.fromkeys(implementations, float("inf"))
    for _ in range(ROUNDS):
        for name, compute in implementations.items():
            best[name] = min(best[name], cpu_seconds(compute, volume))
    for name, seconds in best.items():
        rate = INNER.n_voxels / 1e6 / seconds
        print(f"  {name:<13}{rate:6.2f} Mvoxel/CPU-s   otzi / it {seconds / best['otzi']:5.1f}")
    with tempfile.TemporaryDirectory() as cache:
        cold, kept = first_use_seconds(cache), first_use_seconds(cache)
    print(f"  first use: {cold:.1f} CPU-s to compile, {kept:.1f} CPU-s when kept on disk")
    one, two = (min(wall_seconds(n, volume) for _ in range(ROUNDS)) for n in (1, 2))
    print(f"  two threads are {one / two:.2f} times as fast as one, by the clock")


if __name__ == "__main__":
    main()
