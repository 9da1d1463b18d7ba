"""Classes as people name them in other programs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otzi.classes import ClassTable

__all__ = ["class_named"]


def class_named(label: str, classes: ClassTable) -> str | None:
    """Give the class that a label means: whatever its case, with ``_`` for spaces and hyphens."""
    name = re.sub(r"[\s_-]+", "_", label.strip().lower())
    return name if name in classes.names else None
