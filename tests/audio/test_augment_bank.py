"""The bank of noises: its bound, its choice, what it leaves out."""

import logging
import os
import shutil

import numpy as np
import pytest
import soundfile

from speaker_encoder.audio.noise_bank import find_audio_files, load_bank
from speaker_encoder.errors import UserError

SAMPLING_RATE = 16000


def ramp(path, seconds, sampling_rate=SAMPLING_RATE, scale=0.5):
    """Writes a recording whose samples tell their place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.linspace(-scale, scale, int(seconds * sampling_rate))
    soundfile.write(path, samples, sampling_rate, subtype="FLOAT")
    return path


def test_small_sets_are_kept_whole(tmp_path):
    for number in range(5):
        ramp(tmp_path / "a" / f"{number}.wav", 1 + number / 10)
    bank = load_bank([str(tmp_path)], SAMPLING_RATE, what="noise")
    assert len(bank) == 5 and bank.excluded == ()
    assert list(bank.lengths) == [round(SAMPLING_RATE * (1 + n / 10)) for n in range(5)]
    assert len(bank.samples) == bank.lengths.sum() and bank.samples.dtype == np.float32
    for number in range(5):
        piece = bank.piece(number)
        assert piece[0] == -0.5 and piece[-1] == 0.5
        np.testing.assert_array_equal(bank.piece(number, 10, 20), piece[10:30])


def test_long_files_give_a_random_piece_within_the_bound(tmp_path):
    ramp(tmp_path / "short.wav", 2)
    for number in range(3):
        ramp(tmp_path / f"long{number}.wav", 30)
    arguments = {"what": "noise", "max_seconds": 32.0}
    bank = load_bank([str(tmp_path)], SAMPLING_RATE, **arguments)
    lengths = {os.path.basename(p): n for p, n in zip(bank.paths, bank.lengths, strict=True)}
    assert lengths == {"short.wav": 32000, **{f"long{n}.wav": 160000 for n in range(3)}}
    again = load_bank([str(tmp_path)], SAMPLING_RATE, **arguments)
    np.testing.assert_array_equal(again.samples, bank.samples)
    other = load_bank([str(tmp_path)], SAMPLING_RATE, seed=1, **arguments)
    assert not np.array_equal(other.samples, bank.samples)


def test_too_many_files_a_random_part_of_them(tmp_path):
    for number in range(80):
        ramp(tmp_path / f"{number:02d}.flac".replace("flac", "wav"), 6, sampling_rate=8000)
    bank = load_bank([str(tmp_path)], 8000, what="music", max_seconds=40)
    assert len(bank) == 8
    assert bank.lengths.sum() <= 40 * 8000
    assert bank.lengths.min() >= 5 * 8000
    other = load_bank([str(tmp_path)], 8000, what="music", max_seconds=40, seed=5)
    assert other.paths != bank.paths


def test_a_bound_below_one_piece(tmp_path):
    ramp(tmp_path / "a.wav", 3)
    bank = load_bank([str(tmp_path)], SAMPLING_RATE, what="noise", max_seconds=0.5)
    assert list(bank.lengths) == [8000]


def test_impulse_responses_keep_their_beginning(tmp_path):
    ramp(tmp_path / "a.wav", 4)
    bank = load_bank([str(tmp_path)], SAMPLING_RATE, what="x", max_seconds=1, from_start=True)
    assert bank.piece(0)[0] == -0.5 and len(bank.piece(0)) == SAMPLING_RATE


def test_unusable_files_are_left_out_and_named(tmp_path, caplog):
    ramp(tmp_path / "good.wav", 1)
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000), SAMPLING_RATE)
    samples = np.full(4000, 0.1)
    samples[7] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, SAMPLING_RATE, subtype="FLOAT")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not audio at all, but long enough to look at")
    (tmp_path / "notes.txt").write_text("ignored")
    ramp(tmp_path / ".hidden.wav", 1)
    with caplog.at_level(logging.WARNING):
        bank = load_bank([str(tmp_path)], SAMPLING_RATE, what="noise")
    assert [os.path.basename(path) for path in bank.paths] == ["good.wav"]
    reasons = {os.path.basename(path): reason for path, reason in bank.excluded}
    assert sorted(reasons) == ["empty.wav", "nan.wav", "silent.wav", "text.wav"]
    assert reasons["silent.wav"] == "silent" and "non-finite" in reasons["nan.wav"]
    assert "noise: 4 files left out" in caplog.text and "silent.wav" in caplog.text


def test_resampled_and_mixed_down(tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, tone], axis=1), 44100)
    bank = load_bank([str(tmp_path)], SAMPLING_RATE, what="noise")
    assert list(bank.lengths) == [SAMPLING_RATE]
    spectrum = np.abs(np.fft.rfft(bank.piece(0)))
    assert spectrum.argmax() == 440


def test_files_are_found_once_also_through_links(tmp_path):
    ramp(tmp_path / "b" / "a file.wav", 0.1)
    ramp(tmp_path / "a" / "x.WAV", 0.1)
    os.symlink(tmp_path / "b", tmp_path / "a" / "link")
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    found = find_audio_files([str(tmp_path), str(tmp_path), str(tmp_path / "a" / "x.WAV")], "noise")
    assert sorted(os.path.basename(path) for path in found) == ["a file.wav", "x.WAV"]


def test_nothing_usable_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"wants music from '.*none', which does not exist"):
        load_bank([str(tmp_path / "none")], SAMPLING_RATE, what="music")
    with pytest.raises(UserError, match="wants noise, and found no usable audio file in"):
        load_bank([str(tmp_path)], SAMPLING_RATE, what="noise")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(UserError, match=r"left out: .*empty\.wav"):
        load_bank([str(tmp_path)], SAMPLING_RATE, what="noise")


def test_the_choice_does_not_depend_on_where_the_folder_lies(tmp_path):
    for number in range(6):
        ramp(tmp_path / "one" / f"{number}.wav", 20, sampling_rate=8000)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (
        load_bank([str(tmp_path / name)], 8000, what="noise", max_seconds=12)
        for name in ("one", "two")
    )
    np.testing.assert_array_equal(one.samples, two.samples)
