"""Packages for bioimage.io: valid by its own checker, which runs them, and the same as ours."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

import otzi as library
from otzi.errors import CannotCreate, ConfigurationError
from otzi.normalise import Normalisation
from otzi_pipelines.bioimageio_package import export_bioimageio
from test_interchange import checkpoint, own_model

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Otzi

# The library leaves files for the garbage collector to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHECK = """
import json, sys
from bioimageio.core import test_model
summary = test_model(sys.argv[1])
said = [[d.name, d.status, [e.msg for e in d.errors]] for d in summary.details]
print(json.dumps([summary.status, said]))
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def checked(file: Path) -> tuple[str, list[Any]]:
    """Give what the library's own test says of a package, run apart from this process."""
    pytest.importorskip("bioimageio.core", reason="bioimageio.core is not installed")
    command = [sys.executable, "-c", CHECK, str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    status, details = json.loads(run.stdout.splitlines()[-1])
    return status, details


def description(file: Path) -> dict[str, Any]:
    from ruyaml import YAML

    with zipfile.ZipFile(file) as package:
        return dict(YAML(typ="safe").load(package.read("rdf.yaml")))


@pytest.mark.parametrize("kind", ["own", pytest.param("published", marks=pytest.mark.slow)])
def test_its_own_checker_accepts_and_runs_it(tmp_path: Path, kind: str, otzi: Otzi) -> None:
    source = own_model(tmp_path / "model") if kind == "own" else checkpoint(tmp_path)
    file = tmp_path / "my model.zip"
    run = otzi("model", "export", source, file, "--to", "bioimageio", "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["largest_difference"] < 1e-4
    status, details = checked(file)
    assert [detail for detail in details if detail[1] != "passed"] == []
    assert any("Reproduce test outputs" in name for name, _, _ in details)
    assert status in ("valid-format", "passed")


def test_a_package_says_what_the_card_says(tmp_path: Path) -> None:
    source, file = own_model(tmp_path / "model"), tmp_path / "a.zip"
    export_bioimageio(source, file)
    found = description(file)
    (density,), (probabilities,) = found["inputs"], found["outputs"]
    assert [axis.get("scale") for axis in density["axes"][2:]] == [20, 10, 10]
    assert {axis["unit"] for axis in density["axes"][2:]} == {"angstrom"}
    assert [axis["size"] for axis in density["axes"][2:]] == [{"min": 64, "step": 4}] * 3
    assert probabilities["axes"][1]["channel_names"] == ["background", "membrane", "lumen"]
    steps = [step["id"] for step in density["preprocessing"] if step["id"] != "ensure_dtype"]
    assert steps == ["clip", "zero_mean_unit_variance"]
    assert found["config"]["otzi"]["weights_sha256"] == library.load_model(source).card.sha256
    assert found["weights"]["onnx"]["opset_version"] == 17
    with zipfile.ZipFile(file) as package:
        assert "## Validation" in package.read("README.md").decode()


def test_what_is_in_it_is_the_model(tmp_path: Path) -> None:
    source, file = own_model(tmp_path / "model"), tmp_path / "a.zip"
    export_bioimageio(source, file)
    with zipfile.ZipFile(file) as package:
        package.extractall(tmp_path / "a")
    density = np.load(tmp_path / "a" / "density.npy")
    expected = np.load(tmp_path / "a" / "probabilities.npy")
    seen = Normalisation.from_array(density)(density)
    np.testing.assert_array_equal(library.load_model(source, device="cpu")(seen), expected)
    session = onnxruntime.InferenceSession(
        tmp_path / "a" / "weights.onnx", providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["probabilities"], {"density": seen})
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_package_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, file = own_model(tmp_path / "model"), tmp_path / "a.zip"
    file.write_text("mine")
    with pytest.raises(CannotCreate, match="pass --force"):
        export_bioimageio(source, file)
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    with pytest.raises(ConfigurationError, match=r"'otzi\[bioimageio\]'"):
        export_bioimageio(source, file, force=True)
    assert file.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "model"]
