"""One file that waits: what its header, its end and its side-cars say, and what to do with it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otzi.errors import NotFoundError, SourceError, TemporaryFailure
from otzi.mrc_fields import HEADER_BYTES
from otzi_pipelines.ingest.request import Request, Seal
from otzi_pipelines.ingest.source_files import reading_source
from otzi_pipelines.ingest.sources import Reading
from otzi_pipelines.ingest.unpack import packing_of
from otzi_pipelines.watch.clock import seconds_between
from otzi_pipelines.watch.settle import Decision, Look, decide, has_zero_tail, look_at

if TYPE_CHECKING:
    from pathlib import Path

    from otzi.ledger.sources import Quiet, SourceRow
    from otzi.mrc_header import MrcHeader
    from otzi_pipelines.watch.rules import FolderRule, WatchRules
    from otzi_pipelines.watch.sidecars import SideCars

__all__ = ["Examination", "examine"]

_MOST_TAIL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Examination:
    """What is to be done with a file, and why."""

    decision: Decision
    evidence: str = "quiet"
    request: Request | None = None
    """For the ingest, of a file to take."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What side-cars say."""
    warnings: tuple[str, ...] = ()
    may_pass: bool = False
    """Whether it could not be read, which may pass."""


def examine(
    row: SourceRow, cars: SideCars, rule: FolderRule, rules: WatchRules, now: Quiet
) -> Examination:
    """Give what is to be done with a file that waits.

    Parameters
    ----------
    row
        What is known of it.
    cars
        What its side-cars say.
    rule, rules
        Those of its folder, and all.
    now
        This moment.
    """
    try:
        look = _look(row, cars)
    except SourceError as error:
        may_pass = isinstance(error.__cause__, TemporaryFailure)
        if may_pass:
            return Examination(Decision("wait", str(error)), may_pass=True)
        is_lost = isinstance(error.__cause__, NotFoundError)
        reason = f"{row.path} cannot be found by its name: rename it" if is_lost else str(error)
        look = Look("wrong", reason)
    said = "renamed" if row.evidence == "renamed" else "done" if cars.is_done else None
    evidence = "sha256" if cars.sha256 else said
    quiet = seconds_between(row.quiet, now) if row.state == "settling" else None
    has_evidence = evidence is not None and row.evidence != "doubted"
    decision = decide(look, quiet, rules.patience(rule), has_evidence=has_evidence)
    if decision.do != "take":
        return Examination(decision)
    header = None if look is None else look.header
    spacing, detail = _spacing(rule, header, cars)
    reading = Reading(spacing, as_volume=rule.as_volume)
    request = Request(
        row.path,
        row.tomogram or rule.tomogram_id(row.path, row.folder),
        is_named=row.tomogram is not None,
        preset=rule.preset,
        reading=reading,
        nonfinite=rule.fill,
        update=row.tomogram is not None,
        seal=Seal(row.file.n_bytes, row.file.mtime_ns, cars.sha256),
    )
    warnings = () if header is None else _tail_warnings(row.path, header)
    return Examination(
        decision,
        evidence if has_evidence and evidence else "quiet",
        request,
        detail | ({"warnings": list(warnings)} if warnings else {}),
        warnings,
    )


def _look(row: SourceRow, cars: SideCars) -> Look | None:
    with reading_source(row.path), row.path.open("rb", buffering=0) as file:
        start = file.read(HEADER_BYTES)
    if len(start) >= 4 and packing_of(row.path) is not None:
        return None
    return look_at(start, row.file.n_bytes, str(row.path), cars.own_mdoc)


def _spacing(
    rule: FolderRule, header: MrcHeader | None, cars: SideCars
) -> tuple[tuple[float, float, float] | None, dict[str, Any]]:
    """Give the spacing to use in place of the header's, and what the mdoc says."""
    if cars.mdoc is None:
        return rule.voxel_size, {}
    detail: dict[str, Any] = {"mdoc": cars.mdoc.to_json()}
    if rule.voxel_size is not None or header is None or None not in header.spacing_angstrom:
        return rule.voxel_size, detail
    _, n_rows, n_columns = header.stored_shape
    spacing = cars.mdoc.pixel_spacing_angstrom
    if spacing is None or not cars.mdoc.is_of(n_columns, n_rows):
        return None, detail
    return (spacing, spacing, spacing), detail | {"voxel_size_from": "mdoc"}


def _tail_warnings(path: Path, header: MrcHeader) -> tuple[str, ...]:
    n_sections = header.stored_shape[0]
    n_bytes = min(header.data_bytes // max(1, n_sections), _MOST_TAIL_BYTES)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(-n_bytes, os.SEEK_END)
            tail = file.read(n_bytes)
    except OSError:  # the ingest says so
        return ()
    if not has_zero_tail(tail):
        return ()
    return ("data: the last section is all 0, as if its place were reserved and not yet filled",)
