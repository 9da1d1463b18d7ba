"""What a pickle describes comes out; what it would do does not happen."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import Calls, lightning_document, state_dict, write
from otzi.errors import ModelError, NotFoundError
from otzi.networks.torch_file import TorchFile
from otzi.networks.unpickle import Global, Record, unpickle

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner)
        | st.tuples(inner, inner, inner, inner)
    ),
    max_leaves=20,
)


def described(value: Any, protocol: int = 2) -> Any:
    return unpickle(io.BytesIO(pickle.dumps(value, protocol)), "x.ckpt")[0]


@given(PLAIN, st.integers(0, 4))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert described(value, protocol) == value


def test_values_that_are_shared_stay_shared() -> None:
    shared: list[int] = [1]
    found = described([shared, {"a": shared}])
    assert found[0] is found[1]["a"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_kinds_of_dictionaries_lists_and_records(protocol: int) -> None:
    ordered = OrderedDict(b=1, a=2)
    ordered._metadata = {"version": 1}  # type: ignore[attr-defined]
    assert list(described(ordered, protocol).items()) == [("b", 1), ("a", 2)]
    assert sorted(described({3, 1, 2}, protocol)) == [1, 2, 3]
    namespace = described(argparse.Namespace(width=4, name="x"), protocol)
    assert namespace.kind == Global("argparse", "Namespace")
    assert namespace.state == {"width": 4, "name": "x"}
    path = described(PosixPath("a/b"), protocol)
    assert isinstance(path, Record)
    assert path.args == ("a", "b")
    assert isinstance(described(np.float32(0.5), protocol), Record)


def test_classes_are_names_even_as_keys() -> None:
    assert described({Path: {"best": 1}}) == {Global("pathlib", "Path"): {"best": 1}}
    assert described(os.system) == Global(os.name, "system")


def test_pairs_whose_key_could_be_anything_are_left_out() -> None:
    assert described({(1, 2): 3, "a": 4}) == {"a": 4}


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch executed",), "posix.system"),
        (eval, ("open('executed', 'w')",), "__builtin__.eval"),
        (exec, ("open('executed', 'w')",), "__builtin__.exec"),
        (builtins.getattr, (os, "system"), "__builtin__.getattr"),
        (torch.load, ("other.ckpt",), "torch.serialization.load"),
        (Path.home, (), "__builtin__.getattr"),
    ],
)
def test_a_call_is_refused_by_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = tuple("module" if a is os else a for a in arguments)
    with pytest.raises(ModelError, match=rf"x\.ckpt calls '{name}', .*nothing in it was executed"):
        described({"epoch": [1, Calls(function, *arguments)]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cos\nsystem\n(S'touch executed'\ntR.", "calls 'os.system'"),
        (b"(cos\nsystem\nS'touch executed'\no.", "uses OBJ"),
        (b"(S'touch executed'\nios\nsystem\n.", "uses INST"),
        (b"\x82\x01.", "uses EXT1"),
        (b"Pwhat\n.", "uses PERSID"),
        (b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b".", "does not parse"),
        (b"\x8f(I1\nI2\nd\x90.", "does not parse"),
        (b"", "does not parse"),
        (b"\x80\x02", "does not parse"),
        (b"\x80\x02h\x07.", "does not parse"),
        (b"\x80\x02R.", "does not parse"),
        (b"\x80\x02K\x01K\x02R.", "does not parse"),
        (b"\x80\x02K\x01Q.", "does not parse"),
    ],
)
def test_hand_made_pickles(content: bytes, name: str) -> None:
    with pytest.raises(ModelError, match=name):
        unpickle(io.BytesIO(content), "x.ckpt")


@given(st.binary(max_size=200))
def test_noise_is_no_pickle_and_does_nothing(noise: bytes) -> None:
    for content in (noise, b"\x80\x02" + noise + b"."):
        with suppress(ModelError):
            unpickle(io.BytesIO(content), "x.ckpt")


def test_a_class_cannot_be_changed() -> None:
    """BUILD on a class sets its attributes in an unpickler that returns real classes."""
    content = b"cargparse\nNamespace\n(N}S'__eq__'\nS'changed'\nstb."
    assert unpickle(io.BytesIO(content), "x")[0] == Global("argparse", "Namespace")
    assert argparse.Namespace.__eq__ != "changed"


@pytest.mark.parametrize(
    "content",
    [
        # A memo index that a table would be made for, one state of many objects, nesting.
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x02}q\x00(" + b"".join(b"J" + i.to_bytes(4, "little") + b"N" for i in range(9999))
        + b"u0(" + b"ca\nb\n)\x81h\x00b" * 9999 + b"l.",
        b"\x80\x02)" + b"\x85" * 20_000 + b".",
        b"\x80\x02(" + b"\x8f" * 20_000 + b"l.",
    ],
)  # fmt: skip
def test_memory_follows_the_length_of_the_pickle(content: bytes) -> None:
    tracemalloc.start()
    try:
        unpickle(io.BytesIO(content), "x.ckpt")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 200 * len(content) + 10**5


# Files


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_come_back(tmp_path: Path, is_zip: bool) -> None:
    whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    values = {
        "whole": whole,
        "part": whole[1, :, 1:3],
        "turned": whole.transpose(0, 2),
        "parameter": torch.nn.Parameter(whole[0] * 2),
        "half": whole.half(),
        "brain": whole.bfloat16(),
        "long": whole.long(),
        "bool": whole > 3,
        "scalar": torch.tensor(0.25),
        "empty": torch.zeros(0, 3),
    }
    path = tmp_path / "file.pt"
    torch.save(values, path, _use_new_zipfile_serialization=is_zip)
    with TorchFile(path) as file:
        assert set(file.document) == set(values)
        for name, value in values.items():
            found = file.tensor(file.document[name])
            torch.testing.assert_close(found, value.detach(), rtol=0, atol=0)
            assert found.is_contiguous()


@pytest.mark.parametrize("is_zip", [True, False])
def test_only_what_is_asked_for_is_read(tmp_path: Path, is_zip: bool) -> None:
    torch.save(
        {"large": torch.zeros(2_000_000), "small": torch.ones(3)},
        tmp_path / "file.pt",
        _use_new_zipfile_serialization=is_zip,
    )
    tracemalloc.start()
    try:
        with TorchFile(tmp_path / "file.pt") as file:
            assert file.tensor(file.document["small"]).tolist() == [1, 1, 1]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5_000_000  # the older form is read ahead for 4 MiB


def test_a_lightning_file_has_its_parts(tmp_path: Path) -> None:
    path = write(tmp_path / "x.ckpt", lightning_document(state_dict(1), is_namespace=True))
    with TorchFile(path) as file:
        (callback,) = file.document["callbacks"]
        assert str(callback) == "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
        assert file.document["hyper_parameters"]["hparams"].state["f_maps"] == 4
        assert len(file.document["state_dict"]) == 91
        assert len(file.document["optimizer_states"][0]["state"]) == 91


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], **options: Any) -> Path:
    """Write an archive again with other contents; None leaves a file out."""
    with zipfile.ZipFile(path) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", **options) as new:
        for name, content in contents.items():
            changed = change(name, content)
            if changed is not None:
                new.writestr(name, changed)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda n, c: None if n.endswith("data/0") else c, "has no 'data/0'"),
        (lambda n, c: c[:-4] if n.endswith("data/0") else c, "3996 bytes, it needs 4000"),
        (lambda n, c: None if n.endswith("data.pkl") else c, "none of torch.save"),
        (lambda n, c: bytes(5 * 2**20) if n.endswith("data.pkl") else c, "none is so large"),
        (lambda n, c: b"big" if n.endswith("byteorder") else c, "big-endian"),
    ],
)
def test_archives_that_are_not_whole(saved: Path, change: Any, names: str) -> None:
    with pytest.raises(ModelError, match=names), TorchFile(rewritten(saved, change)) as file:
        file.tensor(file.document["a"])


def test_nothing_is_unpacked(saved: Path) -> None:
    rewritten(saved, lambda _, c: c, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="is compressed"):
        TorchFile(saved)


def test_a_flipped_bit_in_an_archive_is_seen(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[content.index(torch.ones(1000).numpy().tobytes()) + 500] ^= 1
    saved.write_bytes(content)
    with TorchFile(saved) as file, pytest.raises(ModelError, match="damaged"):
        file.tensor(file.document["a"])


@pytest.mark.parametrize("length", [3000, 200, 20, 3])
def test_the_older_form_cut_short(tmp_path: Path, length: int) -> None:
    path = tmp_path / "old.pt"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"damaged|no file of torch"), TorchFile(path) as file:
        file.tensor(file.document["a"])


def test_what_is_no_file_of_torch(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("weights")
    with pytest.raises(ModelError, match=r"no file of torch\.save"):
        TorchFile(tmp_path / "a.txt")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError, match=r"no file of torch\.save"):
        TorchFile(tmp_path / "b.pkl")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(Calls(os.system, "false")))
    with pytest.raises(ModelError, match=r"calls 'posix\.system'"):
        TorchFile(tmp_path / "c.pkl")
    with pytest.raises(NotFoundError):
        TorchFile(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (1001,), (1,)),
        (1, (1000,), (1,)),
        (0, (10, 10), (1000, 1)),
        (0, (10**12,), (0,)),
        (-1, (10,), (1,)),
        (0, (10,), (-1,)),
        (0, (10,), (1, 1)),
        (0, (2,) * 9, (1,) * 9),
        (0, (True,), (1,)),
    ],
)
def test_a_tensor_lies_within_its_storage(offset: int, shape: Any, strides: Any) -> None:
    class Tensor:
        def __reduce__(self) -> Any:
            arguments = (Stored(), offset, shape, strides, False, OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    class Stored:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> Any:
            kind = torch.FloatStorage
            return ("storage", kind, "0", "cpu", 1000) if isinstance(value, Stored) else None

    file = io.BytesIO()
    Pickler(file, 2).dump(Tensor())
    file.seek(0)
    with pytest.raises(ModelError, match="does not parse: a tensor"):
        unpickle(file, "x.ckpt")
