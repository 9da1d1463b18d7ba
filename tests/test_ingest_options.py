"""Options of ingest: what they say, and what they cannot say."""

from __future__ import annotations

import pytest

from otzi.errors import UsageError
from otzi_pipelines.ingest.options import parse_nonfinite, parse_voxel_size


def test_voxel_sizes_are_one_number_or_three() -> None:
    assert parse_voxel_size("10") == (10.0, 10.0, 10.0)
    assert parse_voxel_size("20,10,5") == (20.0, 10.0, 5.0)
    for text in ("", "0", "-1", "nan", "1,2", "ten", "inf"):
        with pytest.raises(UsageError, match="one number of Å, or three"):
            parse_voxel_size(text)


def test_what_stands_in_for_voxels_that_are_not_finite() -> None:
    assert parse_nonfinite("keep") is None
    assert parse_nonfinite("fill") == "mean"
    assert parse_nonfinite("fill=-1.5") == -1.5
    for text in ("", "fill=", "fill=nan", "fill=x", "3", "keep=1", "=3"):
        with pytest.raises(UsageError, match="give keep, fill, or fill=VALUE"):
            parse_nonfinite(text)
