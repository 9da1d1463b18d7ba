"""How fast crops come, how little the loop adds to a step, and how much memory the loader takes.

Crops of 128³ of a float16 volume with hard labels, and with soft ones, warm page cache. A fake step
takes as long as the crops do that two cores can read; the loop must then hardly wait. A real step
is measured beside the bare forward, backward and optimiser on the same tensors.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from otzi.box import Box
from otzi.collection import create_collection, open_collection
from otzi.memory import format_bytes, peak_memory_bytes, usable_cores
from otzi.networks.architectures import config_from_json
from otzi_pipelines.train.augment import Change
from otzi_pipelines.train.batch import density_of, target_of
from otzi_pipelines.train.crops import CropSource, LabelledVolume
from otzi_pipelines.train.feed import crops_of_steps
from otzi_pipelines.train.learner import Learner
from otzi_pipelines.train.losses import loss_sum
from otzi_pipelines.train.network import first_network
from otzi_pipelines.train.settings import TrainSettings

if TYPE_CHECKING:
    from otzi.collection import Collection

SHAPE = (192, 384, 384)
CROP, BATCH = 128, 4
STEPS = 40
STATISTICS = {
    "minimum": -5.0,
    "maximum": 5.0,
    "mean": 0.0,
    "standard_deviation": 1.0,
    "percentiles": {"0.1": -3.0, "99.9": 3.0},
}
CLASSES = ("background", "membrane", "spikes", "lumen")


def make(folder: Path) -> Collection:
    """Noise, with labels whose borders are as smooth as those of a forest."""
    rng = np.random.default_rng(0)
    col = create_collection(folder / "c", CLASSES)
    tomo = col.add("ts_001")
    whole = Box.whole(SHAPE).slices
    with tomo.write(
        "raw", dtype="float16", shape=SHAPE, spacing_angstrom=(10.0,) * 3, recipe={}
    ) as writer:
        writer[whole] = rng.normal(0, 1, SHAPE).astype(np.float16)
        writer.attributes["statistics"] = STATISTICS
    coarse = rng.normal(0, 2, (4, *(n // 16 for n in SHAPE))).astype(np.float32)
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(coarse)[None], size=SHAPE, mode="trilinear"
    )[0]
    shares = torch.softmax(smooth, 0).numpy()
    upto = np.rint(255 * np.cumsum(shares, 0))
    soft = np.diff(upto, axis=0, prepend=0).astype(np.uint8)
    with tomo.write("labels/soft", dtype="uint8", channels=CLASSES, recipe={}) as writer:
        writer[(slice(0, 4), *whole)] = soft
    with tomo.write("labels/hard", dtype="uint8", downsample="mode", recipe={}) as writer:
        writer[whole] = soft.argmax(0).astype(np.uint8)
        writer.attributes["classes"] = list(CLASSES)
    return col


def source_of(col: Collection, labels: str, *, copies: int = 1, grid: int = 32) -> CropSource:
    volumes = [LabelledVolume(col["ts_001"], labels) for _ in range(copies)]
    return CropSource(volumes, [Box.whole(SHAPE)] * copies, CROP, seed=0, grid_voxels=grid)


def feed_rate(source: CropSource, step_seconds: float = 0.0) -> float:
    """Give crops a second that a step gets which only waits."""
    indices = [range(i * BATCH, (i + 1) * BATCH) for i in range(STEPS + 3)]
    fed = crops_of_steps(source, indices)
    for _ in range(3):
        next(fed)
    begun = time.perf_counter()
    for _ in fed:
        time.sleep(step_seconds)
    return STEPS * BATCH / (time.perf_counter() - begun)


def worked_rate(source: CropSource) -> tuple[float, float]:
    """Give crops a second, and seconds of processor time for each."""
    begun = time.process_time()
    rate = feed_rate(source)
    return rate, (time.process_time() - begun) / ((STEPS + 3) * BATCH)


def report_feed(col: Collection) -> None:
    print(f"crops of {CROP}³, float16, {usable_cores()} cores, best of three; goal 100 crops/s")
    for labels, grid in (("hard", 32), ("soft", 32), ("soft", 64)):
        source = source_of(col, labels, grid=grid)
        rounds = [worked_rate(source) for _ in range(3)]
        free, cpu = max(rate for rate, _ in rounds), min(cpu for _, cpu in rounds)
        # The step consumes nine tenths of what can be read, as a device of that speed would.
        step_seconds = BATCH / (0.9 * free)
        share = max(feed_rate(source, step_seconds) for _ in range(3)) * step_seconds / BATCH
        print(
            f"  {labels} labels, origins on multiples of {grid}: {free:.0f} crops/s; "
            f"{1000 * cpu:.1f} ms of processor time for each, {2 / cpu:.0f} crops/s of two cores"
        )
        print(f"    steps of {1000 * step_seconds:.0f} ms run at {share:.3f} of that, goal 0.9")


def report_memory(folder: str) -> None:
    """Each in a process of its own, whose peak is that of the loader and what it imports."""
    for copies in (1, 300):
        words = [sys.executable, __file__, folder, str(copies)]
        run = subprocess.run(words, capture_output=True, text=True, check=True)
        print(f"  {copies:4} volumes: {run.stdout.strip()}; goal below 1.5 GB")


def load(folder: str, copies: int) -> None:
    source = source_of(open_collection(Path(folder) / "c"), "hard", copies=copies)
    before = peak_memory_bytes()
    feed_rate(source)
    print(f"peak of the process {format_bytes(peak_memory_bytes())}, {format_bytes(before)} before")


def report_step(col: Collection) -> None:
    """Time the learner against the same arithmetic with nothing around it, turn by turn."""
    settings = TrainSettings(batch=1, crop_voxels=64, steps=100)
    volume = LabelledVolume(col["ts_001"], "hard")
    config = config_from_json("residual-unet", {"n_classes": 4, "width": 8, "levels": 3})
    learner = Learner(first_network(config, 0, CLASSES), settings, torch.device("cpu"))
    bare = Learner(first_network(config, 0, CLASSES), settings, torch.device("cpu"))
    crop = CropSource([volume], [Box.whole(SHAPE)], 64, seed=0)[0]
    density = density_of(crop, bare.device)[None, None]
    target = target_of(crop, bare.device)[None]
    seconds: dict[str, list[float]] = {"learner": [], "bare": []}
    worked: dict[str, list[float]] = {"learner": [], "bare": []}
    for i in range(24):
        begun, cpu = time.perf_counter(), time.process_time()
        learner.learn([crop], [Change.draw(settings, i)], 1e-3)
        seconds["learner"].append(time.perf_counter() - begun)
        worked["learner"].append(time.process_time() - cpu)
        begun, cpu = time.perf_counter(), time.process_time()
        bare.optimiser.zero_grad(set_to_none=True)
        loss = loss_sum("cross-entropy", bare.network, bare.network(density), target)
        (loss / target.sum()).backward()
        bare.optimiser.step()
        seconds["bare"].append(time.perf_counter() - begun)
        worked["bare"].append(time.process_time() - cpu)
    print(f"a step of one crop of 64³, width 8, 3 levels, {torch.get_num_threads()} threads")
    for title, times in (("wall", seconds), ("processor", worked)):
        middle = {name: float(np.median(values[4:])) for name, values in times.items()}
        print(
            f"  {title} {1000 * middle['learner']:.0f} ms, bare {1000 * middle['bare']:.0f} ms: "
            f"{100 * (middle['learner'] / middle['bare'] - 1):+.1f} %, goal below 5 %"
        )


def main() -> None:
    if len(sys.argv) == 3:
        load(sys.argv[1], int(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        col = make(Path(folder))
        report_feed(col)
        report_memory(folder)
        report_step(col)


if __name__ == "__main__":
    main()
