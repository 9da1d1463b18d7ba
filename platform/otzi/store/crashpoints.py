"""Named moments at which a test can have the process killed, to show that nothing is lost.

``OTZI_FAIL_AT=shard-renamed:3`` kills the process, as ``kill -9`` does, when the third shard has
been renamed. Without that variable a moment costs one look at the environment.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

__all__ = ["CRASH_POINTS", "RUN_POINTS", "UPLOAD_POINTS", "reach"]

CRASH_POINTS = (
    "staged",
    "shard-written",
    "shard-synced",
    "shard-renamed",
    "shard-recorded",
    "metadata-written",
    "manifest-written",
    "generation-renamed",
    "pointer-written",
)
"""In the order in which a product comes to them."""
UPLOAD_POINTS = ("generation-claimed", "object-uploaded", "upload-verified", "pointer-put")
"""What follows ``manifest-written`` where the product goes to an object store."""
RUN_POINTS = ("stage-claimed", "stage-run", "stage-committed")
"""What a stage of a pipeline comes to, all others between the first two."""

_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Die here, if the environment says so."""
    wanted = os.environ.get("OTZI_FAIL_AT")
    if wanted is None:
        return
    _reached[point] += 1
    name, _, count = wanted.partition(":")
    if name == point and _reached[point] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
