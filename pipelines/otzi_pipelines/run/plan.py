"""What a run would do, without doing anything: for ``--dry-run``."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from otzi.durations import format_seconds
from otzi.errors import OtziError
from otzi.memory import format_bytes
from otzi_pipelines.run.stage_worker import known_state
from otzi_pipelines.run.stages import missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from otzi.ledger.stages import StageRow
    from otzi_pipelines.run.pipeline import Pipeline
    from otzi_pipelines.run.stages import Stage
    from otzi_pipelines.run.volume import Volume

__all__ = ["Planned", "RunPlan", "plan_run", "stage_states"]

PlannedState = Literal["done", "waiting", "quarantined", "to do"]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would do with a stage of a tomogram."""

    tomogram: str
    stage: str
    state: PlannedState
    why: str = ""
    """What it waits for, or why it is quarantined."""
    n_bytes: int = 0
    """On the disk, before compression, of what is to do."""
    seconds: float | None = None
    """That it takes if it is as quick, voxel for voxel, as it was before; None where that is not
    known."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would do, tomogram by tomogram."""

    items: tuple[Planned, ...]
    volumes_at_once: int

    @property
    def to_do(self) -> tuple[Planned, ...]:
        """What there is to do."""
        return tuple(item for item in self.items if item.state == "to do")

    @property
    def n_bytes(self) -> int:
        """That are written at most."""
        return sum(item.n_bytes for item in self.to_do)

    @property
    def seconds(self) -> float:
        """That all takes of which it is known."""
        return sum(item.seconds or 0.0 for item in self.to_do) / self.volumes_at_once

    def to_json(self) -> dict[str, Any]:
        """Give the plan as plain JSON."""
        return {
            "items": [
                {
                    "tomogram": item.tomogram,
                    "stage": item.stage,
                    "state": item.state,
                    "why": item.why,
                    "bytes": item.n_bytes,
                    "seconds": item.seconds,
                }
                for item in self.items
            ],
            "to_do": len(self.to_do),
            "bytes": self.n_bytes,
            "seconds": self.seconds,
            "of_unknown_time": sum(item.seconds is None for item in self.to_do),
        }

    def __str__(self) -> str:
        lines = []
        for item in self.items:
            cost = ""
            if item.state == "to do":
                time = "?" if item.seconds is None else format_seconds(item.seconds)
                cost = f"  up to {format_bytes(item.n_bytes)}, {time}"
            why = f"  {item.why}" if item.why else ""
            lines.append(f"{item.state:<12} {item.tomogram:<24} {item.stage}{cost}{why}")
        lines.append(
            f"{len(self.to_do)} to do, up to {format_bytes(self.n_bytes)}{self._time}; "
            "nothing was changed"
        )
        return "\n".join(lines)

    @property
    def _time(self) -> str:
        known = sum(item.seconds is not None for item in self.to_do)
        never = f"{len(self.to_do) - known} were never run, and nobody knows how long they take"
        if not known:
            return f", {never}" if self.to_do else ""
        time = f", about {format_seconds(self.seconds)}"
        return time if known == len(self.to_do) else f"{time} for {known} of them; {never}"


def plan_run(
    pipeline: Pipeline, volumes: Sequence[Volume], rows: Iterable[StageRow], n_classes: int
) -> RunPlan:
    """Give what a run would do with tomograms, by what the ledger says of them."""
    known = {(row.tomogram, row.stage): row for row in rows}
    rates = _seconds_per_voxel(volumes, known)
    items = []
    for volume in volumes:
        for stage, state, why in stage_states(pipeline, volume, known):
            if state == "to do":
                items.append(_to_do(volume, stage, rates.get(stage.key), n_classes))
            else:
                items.append(Planned(volume.id, stage.key, state, why))
    return RunPlan(tuple(items), pipeline.settings.volumes)


def stage_states(
    pipeline: Pipeline, volume: Volume, known: Mapping[tuple[str, str], StageRow]
) -> Iterator[tuple[Stage, PlannedState, str]]:
    """Yield each stage of a tomogram, its state, and what it waits for or is quarantined for.

    What needs a product that is to be made is to be done, too: its input is not known yet.
    """
    anew: set[str] = set()
    for stage in pipeline.stages_of(volume):
        row = known.get((volume.id, stage.key))
        if gaps := [product for product in missing(stage, volume) if product not in anew]:
            yield stage, "waiting", f"for {', '.join(gaps)}"
        elif not anew & {*stage.needs, *stage.may_use} and (
            state := known_state(volume, stage, row)
        ):
            yield stage, state, (row and row.error) or ""
        else:
            if stage.makes is not None:
                anew.add(stage.makes)
            yield stage, "to do", ""


def _to_do(volume: Volume, stage: Stage, rate: float | None, n_classes: int) -> Planned:
    try:
        n_bytes, n_voxels = stage.n_bytes(volume, n_classes), volume.n_voxels
    except OtziError as error:  # a source that will be quarantined
        return Planned(volume.id, stage.key, "to do", str(error))
    seconds = None if rate is None else rate * n_voxels
    return Planned(volume.id, stage.key, "to do", "", n_bytes, seconds)


def _seconds_per_voxel(
    volumes: Sequence[Volume], known: Mapping[tuple[str, str], StageRow]
) -> dict[str, float]:
    voxels = {volume.id: volume.n_voxels for volume in volumes if "raw" in volume.digests}
    rates: dict[str, list[float]] = {}
    for (tomogram, stage), row in known.items():
        if row.seconds is not None and tomogram in voxels:
            rates.setdefault(stage, []).append(row.seconds / voxels[tomogram])
    return {stage: median(values) for stage, values in rates.items()}
