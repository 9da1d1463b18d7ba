"""A whole collection through a pipeline: one coordinator, its lock, its ledger, its executor."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING
from uuid import uuid4

from otzi.collection import create_collection, is_collection, open_collection
from otzi.errors import ExecutorUnavailable, Locked, UsageError
from otzi.events import Listener, Noted, Warned, ignore
from otzi.execute import checked_executor
from otzi.execute import executor as started
from otzi.ledger.postgres import checked_address, stage_ledger
from otzi.ledger.sqlite import check_place, ledger_path
from otzi.store.location import as_location
from otzi.store.locks import locked
from otzi_pipelines.run.pipeline import load_pipeline
from otzi_pipelines.run.plan import stage_states
from otzi_pipelines.run.stage_worker import StageWorker
from otzi_pipelines.run.turns import Outcome, Turns
from otzi_pipelines.run.volume import Shard, find_volumes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from otzi.collection import Collection
    from otzi.execute import Executor
    from otzi.ledger.stages import StageRow
    from otzi.store.location import Location
    from otzi_pipelines.run.pipeline import Pipeline
    from otzi_pipelines.run.progress import RunEvent, RunListener
    from otzi_pipelines.run.volume import Volume

__all__ = ["opened", "run_collection", "run_pipeline"]

_MOST_RESTARTS = 3


def _nobody(event: RunEvent) -> None:
    """Tell nobody."""


def run_pipeline(
    collection_path: str | Location,
    pipeline_file: str | Path,
    *,
    only: Sequence[str] | None = None,
    executor: str = "local",
    stop: Flag | None = None,
    listen: Listener = ignore,
) -> int:
    """Bring a collection through the pipeline of a file; give the exit code.

    0: all is done; 3: stopped, and work remains; 5: some stages are quarantined; 75: it stalled.
    Parameters and errors are those of `run_collection`.
    """
    return run_collection(
        collection_path,
        load_pipeline(Path(pipeline_file)),
        only=only,
        executor=executor,
        stop=stop,
        listen=listen,
    ).exit_code


def run_collection(
    collection_path: str | Location,
    pipeline: Pipeline,
    *,
    only: Sequence[str] | None = None,
    shard: Shard | None = None,
    executor: str = "local",
    ledger: str | None = None,
    force: bool = False,
    retry: bool = False,
    report: Path | None = None,
    stop: Flag | None = None,
    listen: Listener = ignore,
    tell: RunListener = _nobody,
) -> Outcome:
    """Bring a collection through a pipeline; what is done already is not done again.

    Parameters
    ----------
    collection_path
        It is made if it is not there and the pipeline ingests.
    pipeline
        The stages, and how they are run.
    only
        Ids of tomograms, or patterns of them; all if None.
    shard
        The share of them that this run takes; others take the rest, each with its own ledger.
    executor
        As for `otzi.execute.executor`; it is not started where there is nothing to do.
    ledger
        Address of a PostgreSQL database that several coordinators share; the collection's own
        catalog if None, which allows of one.
    force
        Work although somebody else does: nothing is done twice, as the leases see to.
    retry
        Take out of quarantine whatever is in it.
    report
        HTML file for Dask's own report of the tasks, where `executor` is Dask's.
    stop
        Set from outside to end the run within half a minute.
    listen
        Told what the stages tell, and what a person should know; from any thread, one call at a
        time.
    tell
        Told how the run comes on.

    Raises
    ------
    UsageError
        If there is no such executor, it has no report, or there is no such ledger.
    Locked
        If somebody else runs a pipeline on the collection.
    ConfigurationError
        If the ledger would lie on a network file system, or files and settings do not fit.
    ExecutorUnavailable
        If the executor cannot be had, or cannot be had again after it was lost on the way.
    OutOfSpace, AccessDenied, DeviceUnavailable
        For what concerns every tomogram; leases are given back, what is published stays.
    """
    where, _ = checked_executor(executor)
    if where == "local" and report is not None:
        raise UsageError("--report is Dask's own: pass --executor processes, or a cluster")
    address = checked_address(ledger)
    collection = opened(as_location(collection_path), pipeline)
    workspace = collection.workspace
    owner = f"{socket.gethostname()}/{shard or 'all'}"
    stopped = stop or Flag()
    is_alone = not (address or force)
    with _alone(workspace, shard) if is_alone else nullcontext():
        stages = stage_ledger(collection, address)
        if not is_alone:
            owner += f"/{os.getpid()}-{uuid4().hex[:8]}"
        elif n := stages.bury(owner):
            listen(Noted(f"{n} stages were left by a run that was killed"))
        sources = pipeline.ingest.files() if pipeline.ingest else {}
        volumes = find_volumes(collection, sources, only=only, shard=shard)
        if retry:
            for volume in volumes:
                stages.retry(volume.id)
        for n_restarts in range(_MOST_RESTARTS + 1):
            worker = StageWorker(pipeline.settings, stages, owner, listen, tell)
            turns = Turns(pipeline, worker, workspace, stopped)
            pending = turns.settle_known(volumes)
            if not pending:
                outcome = turns.outcome()
                break
            stages.announce(_to_do(pipeline, pending, stages.rows()))
            with started(executor, pipeline.settings.workers) as running:
                try:
                    with _reporting(running, report):
                        outcome = turns.run(pending, running)
                except ExecutorUnavailable as error:
                    # Others run this scheduler, and may have begun it anew.
                    if where != "tcp" or n_restarts == _MOST_RESTARTS or stopped.is_set():
                        raise
                    listen(Warned(f"{error} (it is looked for once more)"))
                    continue
            if not outcome.has_stalled or where == "local":
                break
            listen(Warned(f"nothing came on for too long: {executor} is ended"))
        turns.tidy(volumes)
        return outcome


def opened(path: Location, pipeline: Pipeline) -> Collection:
    """Give a collection to write to; it is made where a pipeline ingests into a new one."""
    if pipeline.ingest is not None and not is_collection(path):
        return create_collection(path, pipeline.ingest.classes or None)
    return open_collection(path, mode="r+")


def _to_do(
    pipeline: Pipeline, volumes: Sequence[Volume], rows: Iterable[StageRow]
) -> list[tuple[str, str, int]]:
    """Give tomogram and stage of all that there is to do, and the token of the row so far."""
    known = {(row.tomogram, row.stage): row for row in rows}
    keys = [
        (volume.id, stage.key)
        for volume in volumes
        for stage, state, _ in stage_states(pipeline, volume, known)
        if state == "to do"
    ]
    return [(*key, known[key].token if key in known else 0) for key in keys]


def _reporting(executor: Executor, report: Path | None) -> AbstractContextManager[None]:
    if report is None:
        return nullcontext()
    from otzi.clusters import DaskExecutor

    assert isinstance(executor, DaskExecutor)
    return executor.reporting(report)


@contextmanager
def _alone(workspace: Path, shard: Shard | None) -> Iterator[None]:
    """Keep others from running a pipeline with the same ledger, or the same share of it.

    Raises
    ------
    Locked
        If somebody does.
    ConfigurationError
        If the ledger would lie on a network file system.
    """
    check_place(workspace)
    ledger = ledger_path(workspace)
    try:
        with locked(ledger.with_name(f"{ledger.name}.run-{shard or 'all'}.lock")):
            yield
    except Locked as error:
        raise Locked(
            f"another `otzi run` works on {workspace}: wait for its end, or pass --force if the "
            "file system's locks do not tell the truth"
        ) from error
