"""Sources, a pipeline, and what becomes of them where nothing disturbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from invariants import Undisturbed
from mrc_files import mrc_bytes
from otzi_pipelines.run.coordinator import run_pipeline

if TYPE_CHECKING:
    from pathlib import Path

N_VOLUMES = 3

_PIPELINE = """
[run]
volumes = 1
lease_seconds = 1
attempts = 3
backoff_seconds = 0.01
[[stage]]
stage = "ingest"
sources = ["incoming"]
[[stage]]
stage = "view"
"""


@dataclass(frozen=True)
class World:
    """Three files, and a pipeline that ingests and views them."""

    pipeline: Path
    undisturbed: Undisturbed

    @property
    def sources(self) -> Path:
        """The folder of the files."""
        return self.undisturbed.sources


@pytest.fixture
def world(tmp_path: Path) -> World:
    sources, pipeline = tmp_path / "incoming", tmp_path / "p.toml"
    sources.mkdir()
    for n in range(N_VOLUMES):
        volume = np.random.default_rng(n).integers(-90, 90, (40, 60, 60)).astype(np.int8)
        (sources / f"ts_{n}.mrc").write_bytes(mrc_bytes(volume))
    pipeline.write_text(_PIPELINE)
    assert run_pipeline(tmp_path / "unbroken", pipeline) == 0
    return World(pipeline, Undisturbed.of(sources, tmp_path / "unbroken"))
