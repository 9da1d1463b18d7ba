"""A PostgreSQL server of its own for tests, on a socket in a folder that is removed with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["find_programs", "running_server"]


def find_programs() -> Path | None:
    """Give the folder of initdb and pg_ctl, where Debian hides it or on the path."""
    hidden = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = hidden[-1] if hidden else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def running_server(programs: Path) -> Iterator[str]:
    """Start a server; give its address."""
    folder = Path(tempfile.mkdtemp(prefix="otzi-pg-"))
    # The server refuses to be root.
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    data = folder / "data"

    def run(*command: str | Path) -> None:
        subprocess.run(
            [programs / command[0], *command[1:]],
            user=user,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    run("initdb", "--no-sync", "--auth=trust", "--username=otzi", "-D", data)
    run(
        "pg_ctl", "-w", "-D", data, "-l", folder / "log",
        "-o", f"-k {folder} -c listen_addresses='' -c max_connections=40", "start",
    )  # fmt: skip
    try:
        yield f"postgresql://otzi@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "-D", data, "stop")
        shutil.rmtree(folder)
