"""Settings of phantoms: what cannot be meant is named, with its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otzi.errors import ConfigurationError
from otzi.settings import load_settings
from otzi_pipelines.phantom.settings import PhantomSettings
from phantoms import small

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_may_set_everything(tmp_path: Path) -> None:
    path = tmp_path / "phantom.toml"
    path.write_text(
        "snr = 0.2\nsize = [160, 300, 280]\n[specimen]\nirregularity = 0.05\n"
        '[[specimen.particles]]\nfile = "a.map"\n[microscope]\ndefocus_um = [2, 4]\n'
        "[strokes]\nslices = 1\n"
    )
    settings = load_settings(PhantomSettings, path)
    assert (settings.snr, settings.size, settings.strokes.slices) == (0.2, (160, 300, 280), 1)
    assert settings.specimen.particles[0].file == "a.map"
    assert settings.microscope.defocus_um == (2, 4)
    path.write_text("")
    assert load_settings(PhantomSettings, path) == PhantomSettings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("snr = 0", "snr = 0 must be above 0"),
        ("snr = nan", "snr = nan must be above 0"),
        ("seed = -1", "seed = -1 must be at least 0"),
        ("voxel_size_angstrom = 30", "must be at most 25, half of membrane_angstrom"),
        ("size = [90, 256, 256]", r"too small for a virion: z needs \d+ voxels of 10 Å"),
        ("size = [128, 256, 60]", "too small for a virion: x needs"),
        ('dtype = "int8"', "dtype = 'int8' must be int16 or float32"),
        ('name = "a/b"', "name 'a/b' is not a name"),
        ("[specimen]\nvirion_radius_angstrom = [400, 300]", "must ascend from at least twice"),
        ("[specimen]\nirregularity = 0.5", "irregularity = 0.5 must be 0 to 0.2"),
        ("[specimen]\ngold_per_square_micron = inf", "must be at least 0"),
        ("[specimen]\ngolden = 1", "unknown key 'specimen.golden'"),
        ('[[specimen.particles]]\nfile = "a"\nper_square_micron = -1', "must be at least 0"),
        ("[microscope]\ntilt_degrees = 0", "tilt_degrees = 0 must be 1 to 90"),
        ("[microscope]\ndefocus_um = [5, 3]", "must ascend from at least 0"),
        ("[strokes]\npoints = 0", "points = 0 must be at least 1"),
    ],
)
def test_the_value_and_its_limit_are_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "phantom.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=says) as caught:
        load_settings(PhantomSettings, path)
    assert "\n" not in str(caught.value)


def test_the_smallest_size_that_is_named_is_enough() -> None:
    with pytest.raises(ConfigurationError, match="z needs 51 voxels"):
        small(size=(50, 60, 60))
    assert small(size=(51, 60, 60)).size[0] == 51


def test_numbers_are_per_area() -> None:
    assert small(size=(54, 100, 200)).number(1000) == 20
