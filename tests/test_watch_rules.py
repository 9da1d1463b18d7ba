"""Rules by folder: the first that matches decides, and what cannot be meant is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from otzi.errors import ConfigurationError, OtziError
from otzi.settings import load_settings
from otzi_pipelines.watch.options import parse_seconds
from otzi_pipelines.watch.rules import FolderRule, WatchRules

IN = Path("/in")
TOML = """
settle_seconds = 60
ignore = ["*_preview.mrc", "trash/*"]
notify = "mail -s otzi somebody"

[[folder]]
match = "calibration*"
ignore = true

[[folder]]
match = "session_*/binned"
id = "{path}_{stem}"
preset = "train"
voxel_size_angstrom = [20, 10.5, 10.5]
nonfinite = "fill"
settle_seconds = 900

[[folder]]
id = "{folder}-{stem}"
voxel_size_angstrom = 10.0
as_volume = true
"""


@pytest.fixture
def rules(tmp_path: Path) -> WatchRules:
    path = tmp_path / "rules.toml"
    path.write_text(TOML)
    return load_settings(WatchRules, path)


def test_the_first_rule_that_matches_decides(rules: WatchRules) -> None:
    rule = rules.rule(IN / "session_7/binned/ts 1.mrc", IN)
    assert rule.tomogram_id(IN / "session_7/binned/ts 1.mrc", IN) == "session_7_binned_ts_1"
    assert (rule.preset, rule.voxel_size, rule.fill) == ("train", (20, 10.5, 10.5), "mean")
    patience = rules.patience(rule)
    assert (patience.settle_seconds, patience.stall_seconds) == (900, 900)
    other = rules.rule(IN / "a.mrc", IN)
    assert (other.voxel_size, other.as_volume, other.fill) == ((10, 10, 10), True, None)
    assert other.tomogram_id(IN / "a.rec.gz", IN) == "in-a"
    patience = rules.patience(other)
    assert (patience.settle_seconds, patience.stall_seconds) == (60, 600)
    assert WatchRules().rule(IN / "x/a.mrc", IN) == FolderRule()


@pytest.mark.parametrize(
    "path", ["a_preview.mrc", "x/y/a_preview.mrc", "trash/a.mrc", "calibration_2/a.mrc"]
)
def test_what_is_ignored(rules: WatchRules, path: str) -> None:
    assert rules.rule(IN / path, IN).ignore


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("settle_second = 3", "did you mean"),
        ("settle_seconds = -1", "-1"),
        ("settle_seconds = 30\nstall_seconds = 20", "the second the larger"),
        ('[[folder]]\nid = "{name}"', "stem"),
        ('[[folder]]\nid = ""', "stem"),
        ('[[folder]]\npreset = "tiny"', "exact, train, compact"),
        ('[[folder]]\nnonfinite = "fill"', "drop one"),
        ("[[folder]]\nvoxel_size_angstrom = 0.0", "above 0"),
        ("[[folder]]\nvoxel_size_angstrom = [1, 2]", "voxel_size_angstrom"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(OtziError, match=says):
        load_settings(WatchRules, path)


def test_rules_that_are_made_in_python_are_checked_too() -> None:
    with pytest.raises(ConfigurationError):
        FolderRule(id="{nothing}")


def test_durations() -> None:
    found = [parse_seconds(text, "--every") for text in ("30", "30s", "1.5m", "2 min", "1h")]
    assert found == [30, 30, 90, 120, 3600]
    for text in ("", "soon", "-3s", "3d", "1h30m"):
        with pytest.raises(OtziError, match=r"--every .* 30s, 5m or 1h"):
            parse_seconds(text, "--every")


def test_the_example_that_is_shipped_can_be_meant() -> None:
    rules = load_settings(WatchRules, Path(__file__).parents[1] / "deploy" / "watch.toml")
    assert rules.rule(IN / "calibration_1/a.mrc", IN).ignore
    assert rules.rule(IN / "s1/binned/a.mrc", IN).preset == "compact"
    assert rules.rule(IN / "a.mrc", IN).as_volume
