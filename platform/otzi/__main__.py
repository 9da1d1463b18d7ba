"""`python -m otzi` is the command `otzi`."""

from __future__ import annotations

from otzi.cli import main

main()
