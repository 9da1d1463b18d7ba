"""Whether a file is complete, by its name, its header, and how long it has been quiet.  Pure.

All of these must hold, and none of them is enough: a copy may begin with the whole length reserved,
a header may be written last, a transfer may pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from otzi.errors import SourceError
from otzi.mrc_fields import HEADER_BYTES
from otzi.mrc_header import parse_header

if TYPE_CHECKING:
    from otzi.mrc_header import MrcHeader
    from otzi_pipelines.watch.sidecars import Mdoc

__all__ = [
    "Decision",
    "Look",
    "Patience",
    "decide",
    "has_zero_tail",
    "is_temporary",
    "look_at",
]

_TEMPORARY = ("*.tmp", "*.part", "*.partial", "*.filepart", "*downloading", "~*", ".*")


def is_temporary(name: str) -> bool:
    """Tell whether a name is one that programs use while they copy, or is hidden."""
    lower = name.lower()
    return any(fnmatchcase(lower, pattern) for pattern in _TEMPORARY)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a file must have been quiet."""

    settle_seconds: float = 30.0
    """For one that is complete by its header, and for one that is refused."""
    stall_seconds: float = 600.0
    """For one that is shorter than its header says, before it is given up."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the start of a file and its length say."""

    fit: Literal["whole", "short", "wrong"]
    """``short``: more is to come. ``wrong``: it will be refused, unless it changes."""
    reason: str = ""
    header: MrcHeader | None = None
    """Of one that is whole."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a file now."""

    do: Literal["wait", "take", "refuse"]
    reason: str = ""
    is_stalled: bool = False
    """Whether it is refused because nothing more came."""


def look_at(start: bytes, n_bytes: int, name: str, mdoc: Mdoc | None = None) -> Look:
    """Give what a header says of the length of its file.

    Parameters
    ----------
    start
        The first 1024 bytes, or all there are.
    n_bytes
        Length of the file.
    name
        What messages call it.
    mdoc
        Of exactly this file: it names every section that there is to be.
    """
    if len(start) < HEADER_BYTES:
        return Look("short", f"{name} has {n_bytes} bytes, an MRC header alone has {HEADER_BYTES}")
    try:
        header = parse_header(start, None, name)
        n_promised = header.data_offset + header.data_bytes
        if n_bytes < n_promised:
            return Look("short", f"{name} has {n_bytes} of the {n_promised} bytes of its header")
        header = parse_header(start, n_bytes, name)
    except SourceError as error:
        return Look("wrong", str(error))
    if header.trailing_bytes:
        return Look(
            "wrong",
            f"{name} has {n_bytes} bytes, {header.trailing_bytes} more than its header says, which "
            "may not be final: copy it again, or `otzi ingest` it by hand",
        )
    n_sections, n_rows, n_columns = header.stored_shape
    if mdoc is not None and mdoc.is_of(n_columns, n_rows) and n_sections < mdoc.n_sections:
        return Look("short", f"{name} has {n_sections} sections, its mdoc names {mdoc.n_sections}")
    return Look("whole", header=header)


def decide(
    look: Look | None, quiet_seconds: float | None, patience: Patience, *, has_evidence: bool
) -> Decision:
    """Give what is to be done with a file.

    Parameters
    ----------
    look
        None for a compressed file, whose length says nothing.
    quiet_seconds
        Between the first look that found it as it is and this one; None at that first look.
    patience
        For how long it must have been quiet.
    has_evidence
        Whether somebody who knows says that it is complete.
    """
    fit = "whole" if look is None else look.fit
    reason = "" if look is None else look.reason
    if has_evidence and fit == "whole":
        return Decision("take")
    limit = patience.stall_seconds if fit == "short" else patience.settle_seconds
    if quiet_seconds is None or quiet_seconds < limit:
        return Decision("wait", reason)
    if fit == "short":
        reason = f"{reason}; nothing came for {quiet_seconds:.0f} s: copy it again"
    return Decision("take" if fit == "whole" else "refuse", reason, is_stalled=fit == "short")


def has_zero_tail(tail: bytes) -> bool:
    """Tell whether the end of a file is all zeros, as of one whose length was reserved first."""
    return bool(tail) and not any(tail)
