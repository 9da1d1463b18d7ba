"""The microscope of phantoms: each promise about Fourier space and noise, measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otzi_pipelines.phantom.microscope import (
    Exposure,
    Optics,
    develop,
    filtered,
    record,
    wavelength_angstrom,
)
from otzi_pipelines.phantom.settings import MicroscopeSettings
from otzi_pipelines.phantom.specimen import Scene
from otzi_pipelines.phantom.virion import BACKGROUND, MEMBRANE, SPIKES
from phantoms import scene_of, small
from references import seen_by_microscope

NO_GOLD = {"gold_per_square_micron": 0.0}
EXPOSURE = Exposure(4.0, 30.0, 1.0, 0.0, (0.0, 0.0, 0.0))


def _wedge(shape: tuple[int, ...], degrees: float) -> np.ndarray:
    kz, _, kx = np.ix_(*(np.fft.fftfreq(n) for n in shape))
    beyond = np.abs(kz) > np.tan(np.radians(degrees)) * np.abs(kx)
    return np.broadcast_to(beyond, shape)


@settings(deadline=None, max_examples=8)
@given(
    snr=st.sampled_from([0.05, 0.3, 5.0]),
    tilt=st.sampled_from([40.0, 60.0, 75.0]),
    odd=st.tuples(*[st.integers(0, 1)] * 3),
)
def test_the_wedge_is_empty_and_the_noise_as_asked(
    snr: float, tilt: float, odd: tuple[int, int, int]
) -> None:
    shape = (54 + odd[0], 58 + odd[1], 60 + odd[2])
    chosen = small(NO_GOLD, size=shape, snr=snr, microscope=MicroscopeSettings(tilt_degrees=tilt))
    scene = scene_of(chosen)
    recording = record(scene, chosen, EXPOSURE, np.random.default_rng(1))
    in_virions = scene.labels > BACKGROUND
    signal, noise = (a[in_virions].astype(float) for a in (recording.signal, recording.noise))
    assert signal.var() / noise.var() == pytest.approx(snr, rel=0.01)
    wedge = _wedge(shape, tilt)
    for part in (recording.signal, recording.noise):
        power = np.abs(np.fft.fftn(part.astype(float))) ** 2
        assert power[wedge].sum() < 1e-9 * power.sum()
        assert power[~wedge].sum() > 0.99 * power.sum()
    image = recording.signal.astype(float) + recording.noise
    assert recording.sigma == pytest.approx(image.std(), rel=0.02)


@pytest.mark.parametrize("shape", [(6, 8, 10), (7, 9, 5)])
@pytest.mark.parametrize("astigmatism", [0.0, 1.5])
def test_transfer_is_that_of_the_slow_one(shape: tuple[int, int, int], astigmatism: float) -> None:
    volume = np.random.default_rng(0).standard_normal(shape)
    microscope = MicroscopeSettings(astigmatism_um=astigmatism, low_pass_angstrom=30.0)
    optics = Optics(microscope, EXPOSURE, 8.0)
    found = filtered(volume.astype(np.float32), 8.0, optics.seen)
    true = seen_by_microscope(volume, 8.0, microscope, EXPOSURE)
    np.testing.assert_allclose(found, true, atol=1e-5)


def test_protein_is_dark() -> None:
    chosen = small(NO_GOLD, size=(60, 80, 80), snr=1.0)
    scene = scene_of(chosen)
    recording = record(scene, chosen, EXPOSURE, np.random.default_rng(0))
    image = recording.signal + recording.noise
    ice = image[(scene.labels == BACKGROUND) & (scene.density == 0)].mean()
    for label in (MEMBRANE, SPIKES):
        assert image[scene.labels == label].mean() < ice - 0.3 * recording.sigma


def test_transfer_begins_negative_and_first_crosses_where_theory_says() -> None:
    """Without aberration and amplitude contrast, the first zero is at 1 / sqrt(wavelength Δf)."""
    assert wavelength_angstrom(300) == pytest.approx(0.0196875, rel=1e-4)
    assert wavelength_angstrom(200) == pytest.approx(0.0250793, rel=1e-4)
    microscope = MicroscopeSettings(spherical_aberration_mm=0, amplitude_contrast=0)
    optics = Optics(microscope, EXPOSURE, 5.0)
    zero = (wavelength_angstrom(300) * 4e4) ** -0.5
    k = zero * np.array([0.1, 0.7, 0.999, 1.001, 1.3])
    assert np.sign(optics.contrast(0.0, np.zeros(1), k)).tolist() == [-1, -1, -1, 1, 1]


def test_high_tilts_lose_their_fine_detail_to_the_dose() -> None:
    optics = Optics(MicroscopeSettings(), EXPOSURE, 5.0)
    k, angles = 0.02, np.radians([0, 20, 40, 59])
    seen = [
        abs(float(optics.contrast(k * np.sin(a), np.zeros(1), np.array([k * np.cos(a)]))[0]))
        for a in angles
    ]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.75 * seen[0]


def test_noise_is_correlated() -> None:
    """The low-pass leaves neighbours along x alike; the wedge leaves those along z more so."""
    chosen = small(NO_GOLD, size=(54, 80, 80))
    noise = record(scene_of(chosen), chosen, EXPOSURE, np.random.default_rng(0)).noise
    noise = noise / noise.std()
    along_x = float((noise[..., 1:] * noise[..., :-1]).mean())
    along_z = float((noise[1:] * noise[:-1]).mean())
    assert 0.2 < along_x < along_z < 0.95


def test_gold_changes_neither_noise_nor_scale_and_saturates() -> None:
    without, with_gold = small(NO_GOLD), small()
    scene, golden = scene_of(without), scene_of(with_gold)
    assert golden.gold.any()
    golden = Scene(scene.density, golden.gold, scene.labels)
    plain, bright = (
        record(s, without, EXPOSURE, np.random.default_rng(5)) for s in (scene, golden)
    )
    assert plain.noise.tobytes() == bright.noise.tobytes()
    assert plain.sigma == bright.sigma
    grey = develop(bright, with_gold, EXPOSURE, slice(None))
    limit = 2000 * with_gold.microscope.saturation
    assert (np.abs(grey) == limit).sum() >= 5
    assert np.abs(grey).max() == limit
    assert np.abs(develop(plain, without, EXPOSURE, slice(None))).max() < limit


def test_contrast_brightness_and_gradient_are_those_of_the_exposure() -> None:
    chosen = small(NO_GOLD, dtype="float32")
    recording = record(scene_of(chosen), chosen, EXPOSURE, np.random.default_rng(0))
    plain = develop(recording, chosen, EXPOSURE, slice(None))
    assert plain.dtype == np.float32
    assert plain.std() == pytest.approx(2000, rel=0.02)
    drifted = Exposure(4.0, 30.0, 1.5, 0.25, (0.1, -0.2, 0.3))
    y, x = np.linspace(-1, 1, 60)[:, None], np.linspace(-1, 1, 58)
    expected = 1.5 * (plain + 2000 * (0.25 + 0.1 * y - 0.2 * x + 0.3 * y * x))
    found = develop(recording, chosen, drifted, slice(10, 20))
    np.testing.assert_allclose(found, expected[10:20], rtol=1e-4, atol=1e-1)
    power = np.abs(np.fft.fftn(develop(recording, chosen, drifted, slice(None)).astype(float))) ** 2
    assert power[_wedge(power.shape, 60)].sum() < 1e-9 * power.sum()


def test_exposures_drift_within_their_limits() -> None:
    microscope = MicroscopeSettings()
    drawn = [Exposure.draw(microscope, np.random.default_rng(i)) for i in range(400)]
    logarithms = np.log([one.contrast for one in drawn])
    assert np.std(logarithms) == pytest.approx(microscope.contrast_drift, rel=0.2)
    assert np.std([one.brightness for one in drawn]) == pytest.approx(0.3, rel=0.2)
    assert all(3 <= one.defocus_um <= 6 for one in drawn)
    assert all(sum(map(abs, one.gradient)) == pytest.approx(0.3) for one in drawn)
