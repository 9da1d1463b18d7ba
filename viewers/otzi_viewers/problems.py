"""What a page says is wrong with what it shows, as errors of otzi.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otzi.errors import (
    ConfigurationError,
    CorruptShard,
    OtziError,
    TemporaryFailure,
    UsageError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["page_problems"]

_MOST = 100
_LONGEST_TEXT = 500
_REMEDY = "run `otzi verify`, or make the product again"


def page_problems(report: Mapping[str, Any]) -> tuple[OtziError, ...]:
    """Give the errors of a page's report, ``{"problems": [{"kind", "layer", "text"}, …]}``.

    A `ConfigurationError` for a shader that does not compile, a `VerificationError` for data that
    cannot be opened, a `CorruptShard` for chunks that cannot be read, a `TemporaryFailure` for a
    browser that cannot draw any more.

    Raises
    ------
    UsageError
        If it is no such report.
    """
    entries = report.get("problems")
    if not isinstance(entries, list) or len(entries) > _MOST:
        raise UsageError(f"a report is a list of at most {_MOST} problems")
    return tuple(_problem(entry) for entry in entries)


def _problem(entry: Any) -> OtziError:
    if not isinstance(entry, dict):
        raise UsageError("a problem is an object with kind, layer and text")
    kind, layer, text = (
        " ".join(str(entry.get(key, "")).split())[:_LONGEST_TEXT]
        for key in ("kind", "layer", "text")
    )
    match kind:
        case "shader":
            return ConfigurationError(
                f"layer {layer}: its shader does not compile, what is drawn is another's: {text}"
            )
        case "data":
            return VerificationError(f"layer {layer} cannot be shown: {text}: {_REMEDY}")
        case "chunks":
            return CorruptShard(f"{text}: {_REMEDY}")
        case "graphics":
            return TemporaryFailure("the browser has lost its graphics card: reload the page")
    raise UsageError(f"problem {kind!r}: there are shader, data, chunks and graphics")
