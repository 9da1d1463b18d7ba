"""The promises of the repository layout, checked."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOTS = {"platform": "otzi", "pipelines": "otzi_pipelines", "viewers": "otzi_viewers"}
MAY_IMPORT: dict[str, set[str]] = {
    "otzi": set(),
    "otzi_pipelines": {"otzi"},
    "otzi_viewers": {"otzi"},
}
HEAVY = {"torch", "neuroglancer", "cupy", "distributed", "sklearn"}


def test_roots_are_not_packages() -> None:
    """`platform/__init__.py` would replace the standard library's `platform`."""
    folders = [ROOT / name for name in ROOTS] + [ROOT / "tests", *ROOT.glob("tests/**/")]
    assert not [folder for folder in folders if (folder / "__init__.py").exists()]


@pytest.mark.parametrize("args", [["-c", "import platform; platform.system()"], ["-m", "platform"]])
@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": str(ROOT)}])
def test_stdlib_platform_from_the_root(args: list[str], env: dict[str, str]) -> None:
    command = [sys.executable, *args]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("root", "package"), ROOTS.items())
def test_dependencies_point_one_way(root: str, package: str) -> None:
    for path in (ROOT / root).rglob("*.py"):
        for top in _imported_packages(path) & set(MAY_IMPORT):
            assert top == package or top in MAY_IMPORT[package], f"{path} imports {top}"


def _imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", [*ROOTS.values(), "otzi.cli"])
def test_import_stays_light(package: str) -> None:
    code = f"import sys, {package}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())


def test_verbs_that_look_load_no_arrays() -> None:
    code = "import sys, otzi.inspect_verbs; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"dask", "xarray", "pandas", "zarr", "numba", "scipy"} & set(run.stdout.split())


@pytest.mark.parametrize("root", ROOTS)
def test_no_module_hides_a_library(root: str) -> None:
    libraries = {"zarr", "dask", "torch", "numpy", "xarray", "neuroglancer"}
    modules = {path.stem for path in (ROOT / root).rglob("*.py")}
    assert not modules & (libraries | sys.stdlib_module_names)
