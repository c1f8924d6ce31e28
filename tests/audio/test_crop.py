"""A crop equals the slice of the whole recording, and costs what the crop costs."""

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import make_waveform, write_audio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speaker_encoder.audio import AudioError, read_audio, read_info, resampled_num_samples
from speaker_encoder.audio.resample import resample, source_span

EXACT_FORMATS = [".wav", ".flac", ".aiff", ".au", ".caf", ".w64", ".mka", ".mov"]
LOSSY_FORMATS = [".ogg", ".mp3", ".m4a", ".mp4", ".aac", ".mkv", ".webm"]
ALL_FORMATS = [*EXACT_FORMATS, *LOSSY_FORMATS]
RATES = st.sampled_from([8_000, 11_025, 12_345, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000])


@pytest.fixture(scope="module", params=ALL_FORMATS)
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("formats") / f"recording{request.param}"
    return write_audio(path, make_waveform(48_000 * 6 + 1_234, 48_000), 48_000)


@pytest.mark.parametrize("sampling_rate", [48_000, 16_000, 22_050])
def test_a_crop_is_the_slice_of_the_whole(recording: Path, sampling_rate: int) -> None:
    info = read_info(recording)
    whole = read_audio(recording, sampling_rate)
    generator = np.random.default_rng(0)
    starts = [0, 1, sampling_rate // 3, *generator.integers(0, 5 * sampling_rate, 8)]
    for start in map(int, starts):
        crop = read_audio(
            recording, sampling_rate, start=start, num_samples=sampling_rate, info=info
        )
        assert crop.dtype == np.float32
        assert crop.shape == (sampling_rate,)
        np.testing.assert_allclose(crop, whole[start : start + sampling_rate], atol=2e-4)


def test_what_is_read_is_what_was_written(recording: Path) -> None:
    written = make_waveform(48_000 * 6 + 1_234, 48_000)
    read = read_audio(recording, 48_000)
    if recording.suffix in EXACT_FORMATS:
        assert len(read) == len(written)
        np.testing.assert_allclose(read, written, atol=2 / 32_768)
        return
    assert abs(len(read) - len(written)) <= 3 * 1_152
    shared = min(len(read), len(written), 48_000 * 5)
    delay = _delay(read[:shared], written[:shared])
    aligned = read[delay : delay + 48_000 * 4]
    correlation = np.corrcoef(aligned, written[: len(aligned)])[0, 1]
    assert correlation > 0.99
    # Bare aac has no field for the encoder's delay; all others are without it.
    assert delay == (1_024 if recording.suffix == ".aac" else 0)


def _delay(read: np.ndarray, written: np.ndarray) -> int:
    size = 2 * len(read)
    spectrum = np.fft.rfft(read, size) * np.conj(np.fft.rfft(written, size))
    return int(np.argmax(np.fft.irfft(spectrum, size)[:4_000]))


def test_a_crop_at_the_end_is_shorter(recording: Path) -> None:
    whole = read_audio(recording, 16_000)
    crop = read_audio(recording, 16_000, start=len(whole) - 500, num_samples=16_000)
    assert len(crop) == 500
    # The encoder's noise at the very end is drawn anew by every decoder.
    np.testing.assert_allclose(crop, whole[-500:], atol=2e-3)
    assert len(read_audio(recording, 16_000, start=len(whole) + 48_000, num_samples=10)) == 0


@given(
    source_rate=RATES,
    sampling_rate=st.sampled_from([8_000, 16_000, 24_000]),
    num_channels=st.integers(1, 3),
    seconds=st.floats(0.001, 3.0),
    start=st.floats(0.0, 1.0),
    length=st.floats(0.0, 1.0),
    extension=st.sampled_from([".wav", ".flac"]),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_crop_of_any_rate(
    tmp_path: Path,
    source_rate: int,
    sampling_rate: int,
    num_channels: int,
    seconds: float,
    start: float,
    length: float,
    extension: str,
) -> None:
    num_source = max(1, int(seconds * source_rate))
    generator = np.random.default_rng(num_source)
    noise = generator.uniform(-0.9, 0.9, (num_channels, num_source)).astype(np.float32)
    path = write_audio(tmp_path / f"noise{extension}", noise, source_rate)
    whole = read_audio(path, sampling_rate)
    assert len(whole) == resampled_num_samples(num_source, source_rate, sampling_rate)
    first, wanted = int(start * len(whole)), int(length * len(whole))
    crop = read_audio(path, sampling_rate, start=first, num_samples=wanted)
    assert len(crop) == min(wanted, len(whole) - first)
    np.testing.assert_allclose(crop, whole[first : first + wanted], atol=1e-5)


@given(num_samples=st.integers(0, 5_000), source_rate=RATES, sampling_rate=RATES)
@settings(max_examples=100, deadline=None)
def test_the_resampled_length_is_that_of_soxr(
    num_samples: int, source_rate: int, sampling_rate: int
) -> None:
    resampled = resample(np.zeros(num_samples, np.float32), source_rate, sampling_rate)
    assert len(resampled) == resampled_num_samples(num_samples, source_rate, sampling_rate)


def test_only_the_crop_and_its_margin_are_decoded() -> None:
    hour = 3_600 * 44_100
    span = source_span(1_000_000, 32_000, hour, 44_100, 16_000)
    assert span.num_samples < 2.2 * 44_100
    assert span.start <= 1_000_000 * 44_100 / 16_000 < span.start + span.num_samples


def test_resampling_keeps_a_tone(tmp_path: Path) -> None:
    seconds = np.arange(44_100) / 44_100
    path = write_audio(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * seconds), 44_100)
    resampled = read_audio(path, 16_000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(resampled[500:-500], expected[500:-500], atol=1e-3)


@pytest.mark.parametrize("extension", [".wav", ".flac"])
@pytest.mark.parametrize("sampling_rate", [16_000, 44_100])
def test_a_crop_of_ten_minutes_costs_what_one_of_five_seconds_costs(
    tmp_path: Path, extension: str, sampling_rate: int
) -> None:
    paths = {}
    for seconds in (5, 600):
        paths[seconds] = tmp_path / f"{seconds}{extension}"
        write_audio(
            paths[seconds], make_waveform(seconds * sampling_rate, sampling_rate), sampling_rate
        )

    def best_time(seconds: int) -> float:
        info, times = read_info(paths[seconds]), []
        for start in np.random.default_rng(0).integers(0, (seconds - 2) * 16_000, 30):
            begin = time.perf_counter()
            read_audio(paths[seconds], 16_000, start=int(start), num_samples=32_000, info=info)
            times.append(time.perf_counter() - begin)
        return float(np.median(times))

    best_time(5)
    assert best_time(600) < 2 * best_time(5)


def test_a_crop_of_a_long_m4a_does_not_decode_the_rest(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "long.m4a", make_waveform(16_000 * 300, 16_000))
    info = read_info(path)
    begin = time.perf_counter()
    whole = read_audio(path, 16_000, info=info)
    middle = time.perf_counter()
    crop = read_audio(path, 16_000, start=16_000 * 290, num_samples=32_000, info=info)
    assert time.perf_counter() - middle < (middle - begin) / 10
    np.testing.assert_allclose(crop, whole[16_000 * 290 : 16_000 * 292], atol=2e-4)


def test_a_negative_crop_is_refused(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", make_waveform(100, 16_000))
    with pytest.raises(ValueError, match="cannot start at -1"):
        read_audio(path, 16_000, start=-1)


def test_a_file_that_changed_since_the_scan_is_named(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", make_waveform(16_000, 16_000))
    info = read_info(path)
    write_audio(path, make_waveform(8_000, 8_000), 8_000)
    with pytest.raises(AudioError, match="changed since its header was read"):
        read_audio(path, 16_000, info=info)


def test_a_file_that_became_shorter_since_the_scan_is_named(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", make_waveform(16_000, 16_000))
    info = read_info(path)
    soundfile.write(path, make_waveform(8_000, 16_000), 16_000)
    with pytest.raises(AudioError, match="truncated") as caught:
        read_audio(path, 16_000, start=4_000, num_samples=8_000, info=info)
    assert caught.value.reason == "truncated"
