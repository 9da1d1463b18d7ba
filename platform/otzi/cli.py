"""`otzi VERB`: the verbs are entry points of the group ``otzi.commands``, imported when called.

A verb is a function under `verb` whose first parameter is the `Console`; the others are typer's.
It returns nothing when all is done, otherwise the exit code::

    @verb
    def command(console: Console, collection: Annotated[Path, typer.Argument()]) -> int | None: ...
"""

from __future__ import annotations

import functools
import inspect
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import otzi
from otzi.console import Console
from otzi.errors import NotFoundError, OtziError, disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call", "main", "verb"]

_INTERRUPTED = 130

_SHARED_OPTIONS = {
    "as_json": (
        Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output.")],
        False,
    ),
    "verbose": (
        Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more; tracebacks.")],
        0,
    ),
    "quiet": (
        Annotated[bool, typer.Option("-q", "--quiet", help="Say only what went wrong.")],
        False,
    ),
}


def _verbs() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="otzi.commands")}


class _Verbs(TyperGroup):
    """The group whose commands are found by entry point."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(_verbs())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = _verbs().get(cmd_name)
        return None if entry is None else _command(entry.load(), cmd_name)


def _command(target: Callable[..., None] | typer.Typer, name: str) -> Any:
    if isinstance(target, typer.Typer):
        return typer.main.get_command(target)
    app = typer.Typer(add_completion=False)
    app.command(name)(target)
    return typer.main.get_command(app)


def verb(function: Callable[..., int | None]) -> Callable[..., None]:
    """Give the verb as typer takes it: ``--json``, ``-v``, ``-q`` in place of its console."""

    @functools.wraps(function)
    def run(*, as_json: bool, verbose: int, quiet: bool, **arguments: Any) -> None:
        verbosity = -1 if quiet else verbose
        with Console(verbosity=verbosity, as_json=as_json) as console:
            try:
                code = function(console, **arguments)
            except KeyboardInterrupt:
                console.close()
                console.error("interrupted")
                code = _INTERRUPTED
            except BrokenPipeError:
                raise
            except (OtziError, OSError) as error:
                console.close()
                code = _report(console, error)
        raise typer.Exit(code or 0)

    parameters = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [p.replace(kind=keyword) for p in parameters]
    parameters += [
        inspect.Parameter(name, keyword, default=default, annotation=annotation)
        for name, (annotation, default) in _SHARED_OPTIONS.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def call(name: str, console: Console, **arguments: Any) -> int:
    """Run a verb by its name, as the command line does, and give its exit code.

    The verb speaks to `console`; what it would print to standard output is dropped, and its errors
    are raised.

    Raises
    ------
    NotFoundError
        If no such verb is installed.
    """
    if name not in _verbs():
        raise NotFoundError(f"no verb {name!r}: install otzi with the part that has it")
    function = inspect.unwrap(_verbs()[name].load())
    return function(console.without_result(), **arguments) or 0


def _report(console: Console, error: OtziError | OSError) -> int:
    if not isinstance(error, OtziError):
        try:
            with disk_errors(error.filename or "the file system", "working on"):
                raise error
        except OtziError as named:
            error = named
    console.error(" ".join(str(error).split()))
    if console.verbosity > 0:
        console.traceback()
    return error.exit_code


_app = typer.Typer(
    cls=_Verbs, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"otzi {otzi.__version__}\n")
        raise typer.Exit


@_app.callback()
def _otzi(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Turn cryo-electron tomograms of any size into soft segmentations you can look at."""


def main() -> None:
    """Run the command line."""
    _app()
