"""Every artefact of ``deploy/`` before the tool of its trade, and a spoilt one that must fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7 as _DRAFT7

from otzi.ledger.stage_report import StageCounts, prometheus_text
from otzi.ledger.stages import StageState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OVERLAYS = sorted(path.name for path in (DEPLOY / "kubernetes/overlays").iterdir())
UNITS = sorted(path.name for path in (DEPLOY / "systemd").iterdir())
_KUBERNETES = "1.32"
_MOST_EXPOSED = 3.0

pytestmark = pytest.mark.deploy


@pytest.fixture(name="tool")
def _tool(require: Callable[[str, str], None]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs a program of this environment or of the system."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))

    def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
        found = shutil.which(program, path=path)
        if found is None:
            require("deploy", f"{program} is not installed: see `make deploy-check`")
        return subprocess.run(
            [str(found), *map(str, words)], capture_output=True, text=True, check=False, timeout=120
        )

    return run


def spoilt(tmp_path: Path, file: Path, old: str, new: str) -> Path:
    """Give a copy of a file in which one thing is wrong."""
    text = file.read_text()
    assert old in text
    copy = tmp_path / file.name
    copy.write_text(text.replace(old, new, 1))
    return copy


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])
def test_images(tool: Any, tmp_path: Path, name: str) -> None:
    file = DEPLOY / "container" / name
    assert tool("hadolint", file).returncode == 0
    bad = spoilt(tmp_path, file, "FROM python:3.13-slim-bookworm\n", "FROM python\n")
    assert "DL3006" in tool("hadolint", bad).stdout
    # What hadolint does not ask for
    text = file.read_text()
    assert "\nUSER 10001\n" in text
    assert "\nHEALTHCHECK " in text


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_images_have_all_that_is_copied(name: str) -> None:
    copied = [
        word
        for line in (DEPLOY / f"container/Dockerfile.{name}").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    ignored = (DEPLOY / f"container/Dockerfile.{name}.dockerignore").read_text().splitlines()
    assert copied
    for path in copied:
        assert (DEPLOY.parent / path).exists()
        assert f"!{path}" in ignored


def test_compose(tool: Any, tmp_path: Path) -> None:
    check = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    file = DEPLOY / "compose/compose.yaml"
    assert tool(*check, file).returncode == 0
    assert tool(*check, spoilt(tmp_path, file, "healthcheck:", "helthcheck:")).returncode == 1


def test_compose_mounts_what_there_is() -> None:
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    mounts = [volume for service in services.values() for volume in service.get("volumes", ())]
    shipped = [mount.split(":")[0] for mount in mounts if mount.startswith("../")]
    assert shipped
    for path in shipped:
        assert (DEPLOY / "compose" / path).exists()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes(tool: Any, tmp_path: Path, overlay: str) -> None:
    rendered = rendered_overlay(tool, DEPLOY / "kubernetes/overlays" / overlay)
    file = tmp_path / "all.yaml"
    file.write_text(rendered)
    check = ("kubernetes-validate", "--kubernetes-version", _KUBERNETES, "--strict")
    checked = tool(*check, file)
    assert checked.returncode == 0, checked.stderr
    bad = spoilt(tmp_path, file, "concurrencyPolicy: Forbid", "concurrencyPolicy: [Forbid]")
    assert tool(*check, bad).returncode != 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_dask_cluster(tool: Any, tmp_path: Path, overlay: str) -> None:
    """By the operator's own schema, and its pods and service by Kubernetes'."""
    schema = _operator_schema()
    rendered = rendered_overlay(tool, DEPLOY / "kubernetes/overlays" / overlay)
    (cluster,) = (d for d in yaml.safe_load_all(rendered) if d["kind"] == "DaskCluster")
    schema.validate(cluster)
    assert not _refusals(tool, tmp_path, cluster)

    cluster["spec"]["worker"]["replicas"] = "two"
    with pytest.raises(jsonschema.ValidationError, match="'two' is not of type 'integer'"):
        schema.validate(cluster)
    cluster["spec"]["worker"]["spec"]["containers"][0]["resources"] = "much"
    assert _refusals(tool, tmp_path, cluster)


def test_only_the_gpu_pool_asks_for_gpus(tool: Any) -> None:
    for overlay in OVERLAYS:
        rendered = rendered_overlay(tool, DEPLOY / "kubernetes/overlays" / overlay)
        assert ("nvidia.com/gpu" in rendered) == (overlay == "gpu")
        assert "--resources" not in rendered


def rendered_overlay(tool: Any, folder: Path) -> str:
    rendered = tool("kubectl", "kustomize", folder)
    assert rendered.returncode == 0, rendered.stderr
    text: str = rendered.stdout
    return text


def _operator_schema() -> jsonschema.Draft7Validator:
    """Give the schema of a DaskCluster; its pods are left to Kubernetes' own."""
    operator = pytest.importorskip("dask_kubernetes").__file__
    folder = Path(operator).parent / "operator/customresources"
    crd = yaml.safe_load((folder / "daskcluster.yaml").read_text())
    templates = yaml.safe_load((folder / "templates.yaml").read_text())

    def retrieve(uri: str) -> Resource[Any]:
        if uri.endswith("templates.yaml"):
            return Resource(contents=templates, specification=_DRAFT7)
        anything: dict[str, Any] = {"io.k8s.api.core.v1.PodSpec": {}}
        anything["io.k8s.api.core.v1.ServiceSpec"] = {}
        return Resource(contents={"definitions": anything}, specification=_DRAFT7)

    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return jsonschema.Draft7Validator(schema, registry=Registry(retrieve=retrieve))


def _refusals(tool: Any, tmp_path: Path, cluster: Mapping[str, Any]) -> str:
    scheduler, worker = cluster["spec"]["scheduler"], cluster["spec"]["worker"]
    documents = [
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": "it"}, "spec": spec}
        for kind, spec in (
            ("Pod", scheduler["spec"]),
            ("Pod", worker["spec"]),
            ("Service", scheduler["service"]),
        )
    ]
    file = tmp_path / "pods.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    checked = tool("kubernetes-validate", "--kubernetes-version", _KUBERNETES, "--strict", file)
    return str(checked.stderr or checked.returncode) if checked.returncode else ""


@pytest.fixture(name="units")
def _units(tmp_path: Path) -> Path:
    """Give a folder of the units, their program a stand-in: only its place is looked at."""
    program = tmp_path / "bin/otzi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    shutil.copy(program, program.with_name("dask"))
    folder = tmp_path / "units"
    folder.mkdir()
    for name in UNITS:
        text = (DEPLOY / "systemd" / name).read_text()
        (folder / name).write_text(text.replace("/opt/otzi/bin", str(program.parent)))
    return folder


def _instance(folder: Path, name: str) -> Path:
    """Give the path of a unit; of a template, that of its first instance."""
    return folder / name.replace("@.", "@1.")


def test_units(tool: Any, units: Path) -> None:
    checked = tool(
        "systemd-analyze", "verify", "--man=no", *(_instance(units, name) for name in UNITS)
    )
    ours = [line for line in checked.stderr.splitlines() if "otzi" in line]
    assert not ours
    assert checked.returncode == 0, checked.stderr


def test_a_spoilt_unit(tool: Any, units: Path) -> None:
    unit = units / "otzi-view.service"
    unit.write_text(unit.read_text().replace("ExecStart=/", "ExecStart=/nowhere/"))
    checked = tool("systemd-analyze", "verify", "--man=no", unit)
    assert "otzi-view.service" in checked.stderr
    assert checked.returncode != 0


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".service")])
def test_units_are_confined(tool: Any, units: Path, name: str) -> None:
    words = ("security", "--offline=true", f"--threshold={10 * _MOST_EXPOSED:.0f}")
    assert tool("systemd-analyze", *words, units / name).returncode == 0
    bare = units / "bare.service"
    lines = (units / name).read_text().splitlines()
    bare.write_text(
        "\n".join(line for line in lines if "Protect" not in line and "Sys" not in line)
    )
    assert tool("systemd-analyze", *words, bare).returncode != 0


@pytest.mark.parametrize("name", ["coordinator.sbatch", "array.sbatch"])
def test_slurm_scripts(tool: Any, tmp_path: Path, name: str) -> None:
    file = DEPLOY / "slurm" / name
    assert os.access(file, os.X_OK)
    assert tool("shellcheck", file).returncode == 0
    bad = spoilt(tmp_path, file, 'mkdir -p "$OTZI_LEDGER"', "mkdir -p $OTZI_LEDGER")
    assert "SC2086" in tool("shellcheck", bad).stdout
    assert tool("bash", file).returncode == 2


def test_array_job_takes_its_share(tmp_path: Path) -> None:
    """The script as SLURM calls it, with a stand-in for otzi that tells what it was asked."""
    program = tmp_path / "otzi"
    program.write_text('#!/bin/sh\necho "$OTZI_LEDGER" "$@"\n')
    program.chmod(0o755)
    job = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}
    environment = os.environ | job | {"SLURM_TMPDIR": str(tmp_path)}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    run = subprocess.run(
        ["bash", DEPLOY / "slurm/array.sbatch", "/data/c", "p.toml", "--only", "ts_0*"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [
        f"{tmp_path}/otzi-ledger-7-3",
        *("run", "/data/c", "p.toml", "--shard", "3/16", "--only", "ts_0*"),
    ]


def test_coordinator_job_passes_sigterm_on_and_queues_itself_again(tmp_path: Path) -> None:
    (tmp_path / "otzi").write_text(
        "#!/bin/sh\n"
        '[ "$1" = ledger ] && exit 0\n'
        "trap 'exit 3' TERM\n"
        'kill -TERM "$PPID"\n'
        "while :; do sleep 0.05; done\n"
    )
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    for name in ("otzi", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"SLURM_JOB_ID": "12", "SLURM_TMPDIR": str(tmp_path)}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    run = subprocess.run(
        ["bash", DEPLOY / "slurm/coordinator.sbatch", "/data/c", "p.toml"],
        env=environment,
        check=False,
        timeout=30,
    )
    assert run.returncode == 3
    assert (tmp_path / "asked").read_text().split() == ["requeue", "12"]


def test_alerts(tool: Any, tmp_path: Path) -> None:
    folder = DEPLOY / "monitoring"
    for file, old in (
        (folder / "prometheus.yml", "scrape_configs"),
        (folder / "alerts.yml", "expr"),
    ):
        kind = "config" if file.stem == "prometheus" else "rules"
        assert tool("promtool", "check", kind, file).returncode == 0
        bad = spoilt(tmp_path, file, f"{old}:", f"{old}s:")
        assert tool("promtool", "check", kind, bad).returncode != 0


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    counts = [StageCounts("segment", {"ready": 1}, 2.0)]
    told = set(re.findall(r"^(otzi_\w+)", prometheus_text(counts, {"raw": 1}, 1), re.MULTILINE))
    dashboard = json.loads((DEPLOY / "monitoring/dashboard.json").read_text())
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    rules = yaml.safe_load((DEPLOY / "monitoring/alerts.yml").read_text())
    asked += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    wanted = {name for expr in asked for name in re.findall(r"\botzi_[a-z_]+", expr)}
    assert wanted
    assert wanted <= told
    states = {name for expr in asked for name in re.findall(r'state=~?"([^"]+)"', expr)}
    assert {one for names in states for one in names.split("|")} <= set(get_args(StageState))


# What is written about it


def test_the_guide_names_what_is_there() -> None:
    text = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"(?:deploy|tests)/[\w./-]*[\w/]", text))
    assert {"deploy/pipeline.toml", "deploy/slurm/array.sbatch"} < named
    assert [name for name in named if not (DEPLOY.parent / name).exists()] == []


def test_every_command_of_the_guide_can_be_meant() -> None:
    """Each verb is one, and each of its options, too."""
    text = (DEPLOY / "README.md").read_text()
    commands = re.findall(r"^otzi (\w+)(.*?)(?:  +#.*)?$", text, re.MULTILINE)
    assert {verb for verb, _ in commands} >= {"run", "watch", "doctor", "ledger"}
    for verb, words in commands:
        command = [sys.executable, "-m", "otzi", verb, "--help"]
        env = os.environ | {"COLUMNS": "200"}
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert run.returncode == 0, verb
        for option in re.findall(r"--[\w-]+", words):
            assert option in run.stdout, (verb, option)
