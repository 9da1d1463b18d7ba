"""What a pickle describes, without doing what it says: an interpreter that can call nothing.

Names stay names and calls stay records; of tensors only the description is made, so that the
memory follows the length of the pickle. Source of the format: PEP 3154 and `pickletools`.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from otzi.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BytesIO

__all__ = ["Global", "Record", "Storage", "StoredTensor", "unpickle"]


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function; whatever it names is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Record:
    """An object of a class that is not made: its class, arguments and state, inert."""

    kind: Global
    args: tuple[Any, ...]
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the numbers of tensors lie in the file."""

    kind: str
    """``FloatStorage`` and the like."""
    key: str
    n_elements: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A view of a storage that is not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In elements, like the offset."""


def unpickle(file: BytesIO, source: str) -> tuple[Any, dict[str, Storage]]:
    """Give what the next pickle of a file describes, and by key the storages of its tensors.

    It consists of plain values, `Global`, `Record` and `StoredTensor`.

    Ordered dictionaries are dictionaries, sets are lists. Pairs whose key is no plain value or
    `Global` are left out.

    Raises
    ------
    ModelError
        If the pickle is damaged, or calls anything that such files do not call; `source` names it.
    """
    machine = _Machine(source)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.run(opcode.name, argument)
        return machine.pop(), machine.storages
    except ModelError:
        raise
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{source} is damaged, its pickle does not parse: {error}") from error


_MOST_AXES = 8
_PLAIN_KEYS = (str, int, float, bytes, type(None), Global)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = frozenset(
    "INT LONG BININT BININT1 BININT2 LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)

_DICTIONARIES = frozenset({"collections.OrderedDict", "builtins.dict", "__builtin__.dict"})
_LISTS = frozenset(
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("list", "set", "frozenset", "tuple")
)
# What honest checkpoints call beside; it becomes a record.
_HARMLESS = frozenset(
    "argparse.Namespace collections.defaultdict _codecs.encode copyreg._reconstructor "
    "copy_reg._reconstructor pathlib.Path pathlib.PosixPath pathlib.PurePosixPath "
    "pathlib.WindowsPath torch.Size torch.device numpy.dtype numpy.core.multiarray.scalar "
    "numpy.core.multiarray._reconstruct numpy._core.multiarray.scalar "
    "numpy._core.multiarray._reconstruct".split()
)


class _Machine:
    """The stack and the memo of a pickle, and what each opcode does to them."""

    def __init__(self, source: str) -> None:
        self.storages: dict[str, Storage] = {}
        self._source = source
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Give the top of the stack, which is the result after the last opcode."""
        return self._stack.pop()

    def run(self, opcode: str, argument: Any) -> None:
        """Do one opcode."""
        push, pop = self._stack.append, self._stack.pop
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(self._stack))
            case "POP":
                pop()
            case "POP_MARK":
                self._from_mark()
            case "DUP":
                push(self._stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[int(argument)] = self._stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self._memo[int(argument)])
            case "LIST":
                push(self._from_mark())
            case "TUPLE":
                push(tuple(self._from_mark()))
            case "DICT":
                items = self._from_mark()
                push({})
                self._set(items)
            case "APPEND":
                value = pop()
                self._extend([value])
            case "APPENDS" | "ADDITEMS":
                values = self._from_mark()
                self._extend(values)
            case "FROZENSET":
                push(self._from_mark())
            case "SETITEM":
                value, key = pop(), pop()
                self._set([key, value])
            case "SETITEMS":
                items = self._from_mark()
                self._set(items)
            case "GLOBAL":
                push(Global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = pop(), pop()
                push(Global(_word(module), _word(name)))
            case "REDUCE":
                arguments, function = pop(), pop()
                push(self._called(function, arguments))
            case "NEWOBJ":
                arguments, kind = pop(), pop()
                push(self._made(kind, arguments))
            case "NEWOBJ_EX":
                _keywords, arguments, kind = pop(), pop(), pop()
                push(self._made(kind, arguments))
            case "BUILD":
                self._build(pop())
            case "BINPERSID":
                push(self._storage(pop()))
            case _ if opcode in _VALUES:
                push(argument)
            case _ if opcode in _CONSTANTS:
                push(_CONSTANTS[opcode])
            case _ if opcode in _EMPTY:
                push(_EMPTY[opcode]())
            case _ if opcode in _TUPLES:
                last = [pop() for _ in range(_TUPLES[opcode])]
                push(tuple(reversed(last)))
            case _:
                raise ModelError(
                    f"{self._source} uses {opcode} in its pickle, which no checkpoint needs: it is "
                    "refused, nothing in it was executed"
                )

    def _from_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        target = target.state if isinstance(target, Record) else target
        if isinstance(target, dict):
            target.update(_plain_pairs(zip(items[::2], items[1::2], strict=True)))

    def _build(self, state: Any) -> None:
        if isinstance(self._stack[-1], Record) and isinstance(state, dict):
            # Not a copy: one dictionary may be the state of a million objects.
            self._stack[-1].state = state

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError("a call without a name, or without a tuple of arguments")
        match str(function):
            case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor":
                return _tensor(*arguments[:4])
            case "torch._utils._rebuild_parameter":
                return arguments[0]
            case name if name in _DICTIONARIES and not arguments:
                return {}
            case name if name in _LISTS and all(isinstance(a, list) for a in arguments):
                return arguments[0] if arguments else []
            case name if name in _HARMLESS or name.startswith("pytorch_lightning."):
                return Record(function, arguments)
            case name:
                raise ModelError(
                    f"{self._source} calls {name!r}, which no checkpoint needs: it is refused, "
                    "nothing in it was executed"
                )

    def _made(self, kind: Any, arguments: Any) -> Any:
        if not isinstance(kind, Global) or not isinstance(arguments, tuple):
            raise ValueError("an object without a class")
        return {} if str(kind) in _DICTIONARIES else Record(kind, arguments)

    def _storage(self, identity: Any) -> Storage:
        match identity:
            case ("storage", Global(module="torch", name=kind), str(key), _, int(n), *view):
                if n >= 0 and all(part is None for part in view):
                    return self.storages.setdefault(key, Storage(kind, key, n))
        raise ValueError("a persistent object that is no storage of torch")


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a name that is no text")
    return value


def _plain_pairs(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    return ((key, value) for key, value in pairs if isinstance(key, _PLAIN_KEYS))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    """Give the view, which lies within its storage and has no more elements."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple):
        raise ValueError("a tensor without storage or shape")
    if not isinstance(strides, tuple) or not len(strides) == len(shape) <= _MOST_AXES:
        raise ValueError("a tensor whose strides are not those of its shape")
    if not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
        raise ValueError("a tensor whose shape, strides or offset are no numbers")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if max(last + 1, prod(shape)) > storage.n_elements:
        raise ValueError(f"a tensor of shape {shape} in a storage of {storage.n_elements}")
    return StoredTensor(storage, offset, shape, strides)
