"""The device of a picture is chosen, and the choice is explained."""

from __future__ import annotations

import pytest

from otzi.cuda_device import CudaDevice
from otzi.errors import DeviceUnavailable
from otzi.events import Noted
from otzi_viewers.render import device
from otzi_viewers.render.cpu import Stage
from otzi_viewers.render.device import AUTO, DrawingDevice, chosen_device, on_device
from pictures import blobs

CARD = CudaDevice("NVIDIA Test 9000", "sm_90", 8 * 10**9, "CuPy 14.2.0, NVRTC 12.9")


def _none() -> CudaDevice:
    raise DeviceUnavailable("no NVIDIA driver is here: install it where there is a card")


def test_auto_takes_a_card_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_cuda_device", lambda: CARD)
    for asked in ("auto", "cuda"):
        assert chosen_device(asked) == (CARD, "drawing on NVIDIA Test 9000 (8.0 GB free)")
    assert chosen_device("cpu")[0] is None


def test_auto_without_a_card_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_cuda_device", _none)
    assert chosen_device("auto") == (None, "drawing on the CPU: no NVIDIA driver is here")


def test_a_card_that_is_asked_for_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_cuda_device", _none)
    with pytest.raises(DeviceUnavailable, match=r"no NVIDIA driver.*--device cpu"):
        chosen_device("cuda")


def test_a_stage_draws_by_itself_where_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_cuda_device", _none)
    stage = Stage(blobs((8, 8, 8)))
    told: list[object] = []
    assert on_device(stage, AUTO, told.append) is stage
    assert told == [Noted("drawing on the CPU: no NVIDIA driver is here")]
    assert on_device(stage, DrawingDevice("cpu")) is stage
    with pytest.raises(DeviceUnavailable):
        on_device(stage, DrawingDevice("cuda"))
