"""The verb run as it is typed: plan, progress, exit codes, signals."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console as RichConsole

from mrc_files import mrc_bytes
from otzi import filesystem
from otzi.collection import open_collection
from otzi.ledger.stages import read_stages
from otzi_pipelines.run.plan import Planned, RunPlan, plan_run
from otzi_pipelines.run.progress import Began, Ended, Moved, Settled, Standing, Wanted
from otzi_pipelines.run.table import LiveTable, standing_table
from otzi_pipelines.run.volume import Shard, find_volumes, parse_shard
from otzi_pipelines.run.watchdog import Watchdog
from run_stages import Times, pipeline

if TYPE_CHECKING:
    from commands import Otzi

PIPELINE = """
[[stage]]
stage = "ingest"
sources = ["incoming"]
[[stage]]
stage = "view"
[[stage]]
stage = "ramps"
probs = "unet"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    for n in range(2):
        volume = np.random.default_rng(n).integers(-90, 90, (20, 30, 40)).astype(np.int8)
        (tmp_path / "incoming" / f"ts_{n}.mrc").write_bytes(mrc_bytes(volume))
    (tmp_path / "p.toml").write_text(PIPELINE)
    return tmp_path


def _content(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_it_says_what_came_of_it(folder: Path, otzi: Otzi) -> None:
    run = otzi("run", folder / "c", folder / "p.toml", "--json")
    assert run.code == 0, run.err
    document = json.loads(run.out)
    assert document["left"] == 0
    assert document["quarantined"] == []
    done = {"wanted": 2, "done": 2, "waiting": 0, "quarantined": 0, "left": 0}
    assert document["stages"] == {
        "ingest": done,
        "view": done,
        "ramps/unet": done | {"done": 0, "waiting": 2},
    }
    events = [json.loads(line) for line in run.err.splitlines() if line.startswith("{")]
    assert events[0] == {
        "event": "wanted",
        "volumes": 2,
        "stages": {"ingest": 2, "view": 2, "ramps/unet": 2},
    }
    kinds = [(event["event"], event.get("stage")) for event in events[1:]]
    assert sorted(kinds) == sorted(
        [("began", "ingest"), ("ended", "ingest"), ("began", "view"), ("ended", "view")] * 2
    )
    again = otzi("run", folder / "c", folder / "p.toml")
    assert again.code == 0
    assert "view                     2 done" in again.out
    assert "began" not in again.err


def test_a_bad_file_is_exit_code_5(folder: Path, otzi: Otzi) -> None:
    (folder / "incoming" / "bad.mrc").write_bytes(b"no tomogram" * 30)
    run = otzi("run", folder / "c", folder / "p.toml", "--json")
    assert run.code == 5
    (bad,) = json.loads(run.out)["quarantined"]
    assert (bad["tomogram"], bad["stage"]) == ("bad", "ingest")
    (folder / "incoming" / "bad.mrc").unlink()
    assert otzi("run", folder / "c", folder / "p.toml").code == 0


def test_a_dry_run_says_it_all_and_changes_nothing(folder: Path, otzi: Otzi) -> None:
    before = _content(folder)
    run = otzi("run", folder / "c", folder / "p.toml", "--dry-run", "--json")
    assert run.code == 0, run.err
    plan = json.loads(run.out)
    n_voxels = 20 * 30 * 40
    by_stage = {item["stage"]: item for item in plan["items"] if item["tomogram"] == "ts_0"}
    assert [item["state"] for item in by_stage.values()] == ["to do", "to do", "waiting"]
    assert by_stage["ingest"]["bytes"] == by_stage["view"]["bytes"] == n_voxels * 8 // 7
    assert by_stage["ramps/unet"]["why"] == "for probs/unet"
    assert (plan["to_do"], plan["bytes"], plan["of_unknown_time"]) == (
        4,
        4 * (n_voxels * 8 // 7),
        4,
    )
    assert _content(folder) == before
    otzi("run", folder / "c", folder / "p.toml", "--only", "ts_0")
    before = _content(folder)
    run = otzi("run", folder / "c", folder / "p.toml", "--dry-run")
    assert _content(folder) == before
    assert "done         ts_0                     ingest\n" in run.out
    (line,) = [
        line
        for line in run.out.splitlines()
        if line.startswith("to do        ts_1  ") and "view" in line
    ]
    assert "?" not in line
    assert "2 to do" in run.out


def test_estimates_go_by_voxels_and_by_what_was_measured(folder: Path, otzi: Otzi) -> None:
    otzi("run", folder / "c", folder / "p.toml")
    col = open_collection(folder / "c")
    volumes = find_volumes(col, {})
    rows = read_stages(folder / "c")
    seconds = [row.seconds for row in rows if row.stage == "view"]
    big = find_volumes(col, {})[0]
    big.id, big.shape = "big", (40, 60, 80)  # type: ignore[misc]
    plan = plan_run(pipeline(ViewLike("view")), [*volumes, big], rows, 3)
    assert all(seconds)
    (item,) = [item for item in plan.items if item.tomogram == "big"]
    assert item.seconds == pytest.approx(8 * float(np.median([s or 0 for s in seconds])))


def test_a_plan_says_of_how_much_the_time_is_known() -> None:
    known = Planned("a", "view", "to do", n_bytes=1000, seconds=90.0)
    unknown = Planned("b", "view", "to do", n_bytes=1000)
    never = "1 were never run, and nobody knows how long they take"
    for items, said in (
        ((known,), "1 to do, up to 1 kB, about 45 s; nothing"),
        ((known, unknown), f"2 to do, up to 2 kB, about 45 s for 1 of them; {never}; nothing"),
        ((unknown,), f"1 to do, up to 1 kB, {never}; nothing"),
        ((), "0 to do, up to 0 B; nothing"),
    ):
        assert said in str(RunPlan(items, volumes_at_once=2))


class ViewLike(Times):
    @property
    def key(self) -> str:
        return "view"


def test_only_and_shards(folder: Path, otzi: Otzi) -> None:
    assert otzi("run", folder / "c", folder / "p.toml", "--only", "ts_1").code == 0
    assert open_collection(folder / "c").ids == ("ts_1",)
    for share in ("1/2", "2/2"):
        assert otzi("run", folder / "c", folder / "p.toml", "--shard", share).code == 0
    assert open_collection(folder / "c").ids == ("ts_0", "ts_1")
    assert otzi("run", folder / "c", folder / "p.toml", "--shard", "3/2").code == 2
    assert otzi("run", folder / "c", folder / "p.toml", "--executor", "cloud").code == 2
    assert otzi("run", folder / "none", folder / "q.toml").code == 2


def test_a_ledger_on_a_network_disk_is_refused_and_one_elsewhere_is_taken(
    folder: Path, otzi: Otzi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert otzi("run", folder / "c", folder / "p.toml", "--only", "ts_0").code == 0
    mounts = folder / "mountinfo"
    root = "36 1 0:1 / / rw shared:1 - ext4 /dev/x rw\n"
    share = f"36 2 0:2 / {(folder / 'c').resolve()} rw shared:1 - nfs4 server:/x rw\n"
    mounts.write_text(root + share)
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)
    run = otzi("run", folder / "c", folder / "p.toml")
    assert run.code == 78
    assert "OTZI_LEDGER" in run.err
    monkeypatch.setenv("OTZI_LEDGER", str(folder / "ledger"))
    assert otzi("run", folder / "c", folder / "p.toml").code == 0
    assert {row.tomogram for row in read_stages(folder / "c")} == {"ts_0", "ts_1"}


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/2", "1/", "/2"])
def test_shards_are_checked(text: str) -> None:
    with pytest.raises(ValueError, match="I/N"):
        parse_shard(text)


def test_each_tomogram_is_in_one_shard() -> None:
    names = [f"ts_{n:03}" for n in range(300)]
    shares = [[name for name in names if Shard(n, 8).has(name)] for n in range(1, 9)]
    assert sorted(chain.from_iterable(shares)) == names
    assert min(map(len, shares)) > 20


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from otzi import cli
from otzi_pipelines.run import pipeline as module
from run_stages import Times, pipeline
seconds = float(sys.argv.pop())
hangs = (lambda _: time.sleep(60)) if seconds < 0 else (lambda _: None)
stages = pipeline(
    Times("twice", seconds=abs(seconds), during=hangs), volumes=1, finish_seconds=2
)
import otzi_pipelines.run.turns as turns
turns._ABANDON_SECONDS = 1
import otzi_pipelines.run.verb as verb
verb.load_pipeline = lambda path: stages
cli.main()
"""


def _stopped(folder: Path, name: signal.Signals, seconds: float) -> tuple[int, float, Any]:
    """Stop a run at its first stage; give its exit code, how long it took, its result.

    A stage of fewer than no seconds tells nothing on its way: it cannot be abandoned.
    """
    script = SLOW.format(tests=str(Path(__file__).parent))
    words = ["run", folder / "c", folder / "p.toml", "--json", seconds]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"began"' in line:
            break
    process.send_signal(name)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    document = json.loads(out)
    assert f"stopped, {document['left']} stages are left: the same command goes on" in err
    return process.returncode, time.monotonic() - began, document


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "seconds", "code", "states"),
    [
        (signal.SIGTERM, 60, 3, ["ready", "ready"]),
        (signal.SIGTERM, 0.5, 3, ["committed", "ready"]),
        (signal.SIGTERM, -60, 3, ["ready", "ready"]),
        (signal.SIGHUP, 60, 3, ["ready", "ready"]),
        (signal.SIGINT, 60, 130, ["ready", "ready"]),
    ],
)
def test_a_signal_ends_it_soon_and_leaves_no_lease(
    folder: Path, otzi: Otzi, name: signal.Signals, seconds: float, code: int, states: list[str]
) -> None:
    otzi("ingest", folder / "c", folder / "incoming")
    found, took, document = _stopped(folder, name, seconds)
    assert found == code
    assert took < 20
    assert document["left"] == states.count("ready")
    assert [row.state for row in read_stages(folder / "c")] == states


def test_the_table_counts_and_foretells() -> None:
    standing = Standing(2)
    standing(Wanted(3, {"segment/unet": 3, "view": 3}))
    standing(Began("a", "segment/unet", 1))
    standing(Moved("a", "segment/unet", "tiles", 3, 12, "tiles"))
    standing(Moved("a", "segment/unet", "tiles", 3, 12, "tiles"))
    assert standing.seconds_left is None
    standing(Ended("b", "segment/unet", "committed", 20.0))
    standing(Settled("b", "segment/unet", "done"))
    standing(Settled("b", "view", "waiting"))
    standing(Settled("c", "view", "quarantined"))
    segment = standing.stages["segment/unet"]
    assert segment.running == {"a": 0.5}
    assert segment.seconds_left == 20.0 * 1.5
    assert standing.n_left == 3
    output = StringIO()
    console = RichConsole(file=output, width=120)
    console.print(standing_table(standing, 61.0))
    text = output.getvalue()
    assert "1 of 3" in text
    assert "a 50%" in text
    assert "15 s" in text
    assert "61 s so far, the time left is not known yet" in text
    standing(Ended("c", "view", "committed", 4.0))
    with LiveTable(standing, console, lambda: False):
        pass
    assert "about 17 s left" in output.getvalue()
    with LiveTable(standing, console, lambda: True):
        pass
    assert "stopping: what is soon done may be" in output.getvalue()


def test_a_narrow_terminal_still_names_the_stages() -> None:
    standing = Standing(2)
    names = ("pseudolabel/forest", "segment/unet", "objects/membranes")
    standing(Wanted(2, dict.fromkeys(names, 2)))
    for id_ in ("a_long_name_of_a_tomogram", "another_long_name_of_one"):
        standing(Began(id_, names[1], 1))
    output = StringIO()
    RichConsole(file=output, width=72).print(standing_table(standing, 1.0))
    rows = output.getvalue().splitlines()
    assert [row.split()[0] for row in rows if "/" in row] == list(names)
    assert len([row for row in rows if "of 2" in row]) == len(names)


def test_the_watchdog_barks_after_20_usual_pauses_but_not_before_the_least() -> None:
    dog = Watchdog(10.0, 0.0)
    assert not dog.has_stalled(10.0)
    assert dog.has_stalled(10.1)
    for now in (1.0, 2.0, 3.0):
        dog.moved(now)
    assert dog.limit_seconds == 20.0
    assert not dog.has_stalled(22.9)
    assert dog.has_stalled(23.1)
    dog.idle(100.0)
    assert not dog.has_stalled(119.0)
