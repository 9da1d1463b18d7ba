"""Objects of a class beside cc3d, scipy and dask-image: CPU-seconds, peak memory, the same objects.

Each runs in a process of its own, on the same stored probabilities: smooth noise, tiled, at two
depths. Peers label the thresholded class: cc3d and scipy of the whole volume in memory, which sum
voxels and centroids, too; dask-image of a Dask array of the same chunks, without any sums. otzi's
table has boxes, surfaces and mean probabilities, too; with ``labels`` it publishes the object of
every voxel with a pyramid, which the peers do not store. Memory is what a process takes beyond that
after its imports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

HEIGHT, WIDTH = 768, 768
DEPTHS = (128, 384)
MOST_SECONDS = 100
WAYS = ("otzi", "otzi, labels", "otzi, 600 MB", "cc3d", "scipy", "dask-image")

MAKE = """
import sys
import numpy as np
from scipy.ndimage import gaussian_filter
from otzi.box import tile
from otzi.collection import create_collection
shape = tuple(map(int, sys.argv[2:]))
tomo = create_collection(sys.argv[1], ("background", "membrane")).add("noise")
with tomo.write("raw", dtype="i1", shape=shape, spacing_angstrom=(10,) * 3, recipe={}) as writer:
    for box in tile(shape, (64, 256, 256)):
        writer[box.slices] = np.zeros(box.shape, np.int8)
pattern = gaussian_filter(np.random.default_rng(0).normal(size=(192,) * 3), 3, mode="wrap")
membrane = np.rint(255 * np.clip(0.3 + 4 * pattern, 0, 1)).astype(np.uint8)
with tomo.write("probs/unet", dtype="u1", channels=tomo.classes.names, chunk_voxels=96,
                most_shard_voxels=192, recipe={}, parents=("raw",)) as writer:
    for box in tile(shape, (192, 192, 192)):
        z, y, x = (slice(n) for n in box.shape)
        part = membrane[z, y, x]
        writer[slice(0, 2), *box.slices] = np.stack([255 - part, part])
"""

MEASURE = """
import json, sys, time
import numba, numpy as np, scipy.ndimage, scipy.sparse.csgraph, dask.array, zarr
from otzi.collection import open_collection
from otzi.memory import peak_memory_bytes
from otzi_pipelines.objects.find import find_objects
way = sys.argv[2]
if way == "cc3d":
    import cc3d
if way == "dask-image":
    import dask_image.ndmeasure
tomo = open_collection(sys.argv[1], mode="r+")["noise"]
array = tomo.array("probs/unet")
imported = peak_memory_bytes()
if way.startswith("otzi"):
    how = {"labels": {"with_labels": True}, "600 MB": {"memory_bytes": 600 * 10**6}}
    def run():
        options = how.get(way.partition(", ")[2], {})
        find_objects(tomo, "m", of="probs/unet", classes=["membrane"], threshold=0.5, workers=1,
                     **options)
        return tomo.attributes("objects/m")["n_objects"]
    if way != "otzi, labels":  # compiled once in a life
        find_objects(tomo, "warm", of="probs/unet", classes=["background"], threshold=1.0,
                     min_volume_nm3=1e9, workers=1, memory_bytes=500 * 10**6)
elif way == "cc3d":
    def run():
        labels, n = cc3d.connected_components(array[1] >= 128, connectivity=26, return_N=True)
        cc3d.statistics(labels)
        return n
elif way == "scipy":
    def run():
        mask = array[1] >= 128
        labels, n = scipy.ndimage.label(mask, np.ones((3, 3, 3)))
        scipy.ndimage.center_of_mass(mask, labels, np.arange(1, n + 1))
        return n
else:
    def run():
        mask = tomo.lazy("probs/unet").data[1] >= 128
        labels, _ = dask_image.ndmeasure.label(mask, np.ones((3, 3, 3)))
        with dask.config.set(scheduler="synchronous"):
            return int(labels.max().compute())
start = time.process_time()
n = run()
seconds = time.process_time() - start
print(json.dumps({"n": int(n), "seconds": seconds, "imported": imported,
                  "peak": peak_memory_bytes()}))
"""


def measured(folder: str, way: str) -> dict[str, float] | None:
    """Give what a way takes; None if that is too long."""
    command = [sys.executable, "-c", MEASURE, folder, way]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    found: dict[str, float] = json.loads(run.stdout)
    return found


def main() -> None:
    for depth in DEPTHS:
        n_voxels = depth * HEIGHT * WIDTH
        print(f"{depth} × {HEIGHT} × {WIDTH} voxels, one thread")
        with tempfile.TemporaryDirectory() as folder:
            size = map(str, (depth, HEIGHT, WIDTH))
            subprocess.run([sys.executable, "-c", MAKE, f"{folder}/c", *size], check=True)
            for way in WAYS:
                found = measured(f"{folder}/c", way)
                if found is None:
                    print(f"    {way:<14}not done in {MOST_SECONDS} s")
                    continue
                print(
                    f"    {way:<14}{found['seconds']:7.1f} CPU-s  "
                    f"{found['seconds'] / n_voxels * 1e9:6.1f} ns/voxel  peak "
                    f"{(found['peak'] - found['imported']) / 1e6:6.0f} MB more, "
                    f"{found['peak'] / 1e6:.0f} in all  {found['n']:.0f} objects"
                )


if __name__ == "__main__":
    main()
