"""Settings files: TOML into frozen dataclasses, where an unknown key is an error."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from otzi.errors import ConfigurationError, NotFoundError, disk_errors

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["STRICT", "load_settings", "read_settings"]

STRICT = ConfigDict(extra="forbid")
"""For ``__pydantic_config__`` of a settings dataclass: unknown keys are errors."""

T = TypeVar("T")

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def load_settings(kind: type[T], path: Path) -> T:
    """Give the settings of a TOML file as an instance of the dataclass `kind`.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ConfigurationError
        If it is no TOML, has an unknown key, or a value of the wrong type or range.
    """
    if not path.is_file():
        raise NotFoundError(f"settings file {path} is not there")
    try:
        with disk_errors(path, "reading"):
            document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    return read_settings(kind, document, str(path))


def read_settings(kind: type[T], document: dict[str, Any], source: str) -> T:
    """Give the settings of a parsed document; `source` names it in errors.

    Raises
    ------
    ConfigurationError
        If it has an unknown key, or a value of the wrong type or range.
    """
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {_first(error, kind)}") from error


def _first(error: ValidationError, kind: type[Any]) -> str:
    # A key that is misspelt is lacking, too: what it should have been called helps more.
    problem = min(error.errors(), key=lambda problem: problem["type"] not in _UNKNOWN)
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in _UNKNOWN:
        known = list(getattr(_table(kind, problem["loc"][:-1]), "__dataclass_fields__", {}))
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, 3) or sorted(known)
        return f"unknown key {key!r}; did you mean {', '.join(near)}?"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"{key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _table(kind: Any, path: tuple[int | str, ...]) -> Any:
    """Give the dataclass of a table within the settings; `path` has its keys and indexes."""
    for key in path:
        if isinstance(key, str):
            hint = get_type_hints(kind)[key]
            kind = next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)
    return kind
