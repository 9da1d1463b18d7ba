"""otzi: cryo-electron tomograms of any size into soft segmentations you can look at."""

from __future__ import annotations

__version__ = "0.1.0"
