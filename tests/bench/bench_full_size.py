"""`otzi segment` on a volume of the published size, with the cheapest real network.

500 × 1440 × 1024 voxels of float32 noise, four classes, 825 tiles; the network is one 3³
convolution, so that nearly all that is measured is reading, blending, observing, compressing and
writing. The model's own memory is what its libraries take and, of as many tiles at the same time as
there are workers, the network; the goal is 1 GB beyond that. Then what the view product takes, and
how much of it is reading the probabilities again, which is what making it in the same pass would
save. ``bench_full_size.py Z Y X`` takes another shape.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from bench_monai import CLASSES, make

from otzi.box import tile
from otzi.collection import open_collection
from otzi.memory import PeakMemory, format_bytes, give_back_freed_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otzi.tiles.infer import TorchModel
    from otzi.tomogram import Tomogram

SHAPE = (500, 1440, 1024)
WORKERS = 2
MEMORY_BYTES = 2 * 10**9


def convolution() -> TorchModel:
    """Give a model that is one convolution."""
    import torch

    from otzi.networks.weights import ModelCard
    from otzi.tiles.infer import TorchModel

    class OneConvolution(torch.nn.Module):
        config = SimpleNamespace(size_multiple=1, working_channels=3 * len(CLASSES))

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Conv3d(1, len(CLASSES), 3, padding=1)

        def probabilities(self, tiles: torch.Tensor) -> torch.Tensor:
            return torch.softmax(8 * self.layer(tiles), dim=1)

    card = ModelCard(classes=CLASSES, config={}, spacing_angstrom=None, sha256="0" * 64)
    network = OneConvolution()
    return TorchModel(network, card, Path("model"), device="cpu", threads=1)  # type: ignore[arg-type]


def run(folder: Path) -> None:
    """Segment in this process, and print what it took as JSON."""
    from otzi_pipelines.segment.segmentation import segment

    give_back_freed_memory()
    tomo, model = open_collection(folder, "r+")["ts_001"], convolution()
    small = np.random.default_rng(0).normal(size=(1, 1, 128, 128, 128)).astype(np.float32)
    model(small)
    begun = cpu_seconds()
    for _ in range(8):
        model(small)
    per_tile = (cpu_seconds() - begun) / 8
    model_bytes = own_memory_bytes(model, small)
    memory, begun, before = PeakMemory(), time.monotonic(), cpu_seconds()
    segment(tomo, model, name="net", workers=WORKERS, memory_bytes=MEMORY_BYTES)
    found = {
        "seconds": time.monotonic() - begun,
        "cpu_seconds": cpu_seconds() - before,
        "network_seconds": per_tile,
        "model_bytes": model_bytes,
        "peak_bytes": memory.peak_bytes,
    }
    print(json.dumps(found | view(tomo)))


def own_memory_bytes(model: TorchModel, tiles: NDArray[np.float32]) -> int:
    """Give the peak of this process while all workers infer, and nothing else is done."""
    memory = PeakMemory()

    def infer(_: int) -> None:  # probabilities are let go: more than a tile each is ours
        model(tiles)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(infer, range(4 * WORKERS)))
    return memory.peak_bytes


def view(tomo: Tomogram) -> dict[str, float]:
    """Make the view product; give what it took, and what reading the probabilities took of it."""
    from otzi_pipelines.view_product import build_view

    before = cpu_seconds()
    probabilities = tomo.array("probs/net")
    for box in tile(tomo.shape, (128, 128, 128)):
        probabilities[(slice(None), *box.slices)]
    reading = cpu_seconds() - before
    build_view(tomo, "net")
    return {"view_seconds": cpu_seconds() - before - reading, "reading_seconds": reading}


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    shape = tuple(map(int, sys.argv[1:4])) or SHAPE
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "collection"
        make(folder, shape)  # type: ignore[arg-type]
        command = [sys.executable, __file__, "run", str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        tomo = open_collection(folder)["ts_001"]
        report = json.loads((tomo.path("reports/net") / "report.json").read_text())
        n_bytes = sum(size for size, _ in tomo.manifest("probs/net").values())
    tiles, ratios = report["tiles"], [seam["ratio"] for seam in report["seams"]]
    beside = found["cpu_seconds"] / tiles["inferred"] - found["network_seconds"]
    print(
        f"{' × '.join(map(str, shape))} voxels, {len(CLASSES)} classes, {WORKERS} workers, "
        f"--memory {format_bytes(MEMORY_BYTES)}\n"
        f"  {tiles['inferred']} inferences of {tiles['n_tiles']} tiles, "
        f"{report['coverage']['share']:.0%} covered, seams "
        f"{min(filter(None, ratios)):.3f} to {max(filter(None, ratios)):.3f}\n"
        f"  {found['seconds']:.0f} s, {found['cpu_seconds']:.0f} CPU-s; a tile: network "
        f"{found['network_seconds'] * 1e3:.0f} ms, all else {beside * 1e3:.0f} ms\n"
        f"  peak {format_bytes(found['peak_bytes'])}, "
        f"{format_bytes(found['peak_bytes'] - found['model_bytes'])} over "
        f"the {format_bytes(found['model_bytes'])} of the model alone (<= 1 GB); "
        f"probabilities {format_bytes(n_bytes)} on disk\n"
        f"  view: {found['view_seconds']:.0f} CPU-s; reading the probabilities takes "
        f"{found['reading_seconds']:.0f} of them"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        run(Path(sys.argv[2]))
    else:
        main()
