"""Every kind of unusual and broken file: read rightly, or named with its reason."""

import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import make_waveform, write_audio

from speaker_encoder.audio import AUDIO_EXTENSIONS, AudioError, AudioInfo, read_audio, read_info
from speaker_encoder.errors import UserError

WAVEFORM = make_waveform(16_000, 16_000)


def reason_of(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        read_info(path)
    assert isinstance(caught.value, UserError)
    assert caught.value.path == str(path)
    assert str(caught.value).startswith(f"{path}: {caught.value.reason}")
    with pytest.raises(AudioError) as caught_reading:
        read_audio(path, 16_000)
    assert caught_reading.value.reason == caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [
        ("PCM_U8", 1 / 100),
        ("PCM_16", 1 / 30_000),
        ("PCM_24", 1e-6),
        ("PCM_32", 1e-6),
        ("FLOAT", 1e-7),
        ("DOUBLE", 1e-7),
        ("ULAW", 0.05),
    ],
)
def test_sample_formats(tmp_path: Path, subtype: str, tolerance: float) -> None:
    path = write_audio(tmp_path / "a.wav", WAVEFORM, subtype=subtype)
    assert read_info(path) == AudioInfo(16_000, 16_000, 1)
    read = read_audio(path, 16_000)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, WAVEFORM, atol=tolerance)
    assert abs(float(read.mean())) < 0.01


@pytest.mark.parametrize("extension", [".wav", ".flac", ".m4a", ".mov"])
def test_stereo_is_averaged(tmp_path: Path, extension: str) -> None:
    left, right = make_waveform(32_000, 16_000, seed=0), make_waveform(32_000, 16_000, seed=3)
    path = write_audio(tmp_path / f"stereo{extension}", np.stack([left, right]))
    assert read_info(path).num_channels == 2
    read = read_audio(path, 16_000)
    assert read.shape == (32_000,)
    tolerance = 0.1 if extension == ".m4a" else 1e-4
    np.testing.assert_allclose(
        read[2_000:-2_000], ((left + right) / 2)[2_000:-2_000], atol=tolerance
    )


def test_long_stereo_is_averaged_block_by_block(tmp_path: Path) -> None:
    waveform = make_waveform((1 << 20) + 777, 48_000)
    path = write_audio(tmp_path / "a.wav", np.stack([waveform, -waveform / 2]), 48_000)
    np.testing.assert_allclose(read_audio(path, 48_000), waveform / 4, atol=1e-4)


def test_floats_beyond_one_are_clipped(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", 3 * WAVEFORM, subtype="FLOAT")
    read = read_audio(path, 16_000)
    assert float(np.abs(read).max()) == 1.0


def test_floats_scaled_like_integers_are_named(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", 32_768 * WAVEFORM, subtype="FLOAT")
    with pytest.raises(AudioError, match="samples far outside") as caught:
        read_audio(path, 16_000)
    assert "rescale" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sampling_rate", [16_000, 44_100])
def test_non_finite_samples_are_named(tmp_path: Path, value: float, sampling_rate: int) -> None:
    waveform = WAVEFORM.copy()
    waveform[8_000] = value
    path = write_audio(tmp_path / "a.wav", waveform, sampling_rate, subtype="FLOAT")
    with pytest.raises(AudioError) as caught:
        read_audio(path, 16_000)
    assert caught.value.reason == "non-finite samples"
    assert np.isfinite(read_audio(path, 16_000, start=0, num_samples=500)).all()


def test_digital_silence_and_ten_milliseconds_are_read(tmp_path: Path) -> None:
    silence = write_audio(tmp_path / "silence.flac", np.zeros(16_000, np.float32))
    assert not read_audio(silence, 16_000).any()
    short = write_audio(tmp_path / "short.wav", WAVEFORM[:441], 44_100)
    assert read_info(short).seconds == 0.01
    assert read_audio(short, 16_000).shape == (160,)


@pytest.mark.parametrize("extension", sorted(AUDIO_EXTENSIONS))
def test_no_bytes_and_text_are_named(tmp_path: Path, extension: str) -> None:
    empty, text = tmp_path / f"empty{extension}", tmp_path / f"text{extension}"
    empty.touch()
    text.write_text("p225 Please call Stella.\n" * 50)
    assert reason_of(empty) == "empty file"
    # FFmpeg takes any bytes called .m4v for bare video.
    expected = "no audio stream" if extension == ".m4v" else "not audio that can be decoded"
    assert reason_of(text) == expected


@pytest.mark.parametrize("extension", [".wav", ".flac", ".m4a", ".mp4", ".webm", ".mkv", ".mov"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_files_are_named(tmp_path: Path, extension: str, kept: float) -> None:
    path = write_audio(tmp_path / f"a{extension}", make_waveform(96_000, 48_000), 48_000)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "truncated" in reason_of(path)


def test_the_samples_before_a_cut_are_not_taken_for_the_whole(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.flac", make_waveform(160_000, 16_000))
    info = read_info(path)
    path.write_bytes(path.read_bytes()[:-3_000])
    assert reason_of(path) == "truncated"
    with pytest.raises(AudioError, match="truncated"):
        read_audio(path, 16_000, start=140_000, num_samples=20_000, info=info)


def test_a_header_alone_is_named(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", np.zeros(0, np.float32))
    assert reason_of(path) == "no audio samples"
    path = write_audio(tmp_path / "b.wav", WAVEFORM)
    path.write_bytes(path.read_bytes()[:20])
    assert reason_of(path) == "not audio that can be decoded"


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0])
def test_wav_from_a_pipe_has_no_length_and_is_read(tmp_path: Path, size: int) -> None:
    path = write_audio(tmp_path / "a.wav", WAVEFORM)
    content = bytearray(path.read_bytes())
    position = content.index(b"data") + 4
    content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    content[position : position + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    if size == 0:
        assert reason_of(path) == "no audio samples"
        return
    np.testing.assert_allclose(read_audio(path, 16_000), WAVEFORM, atol=1e-4)


def test_wav_with_more_behind_the_samples_is_whole(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", WAVEFORM)
    with open(path, "ab") as file:
        file.write(b"LIST" + struct.pack("<I", 10) + b"x" * 10)
    assert read_info(path).num_samples == 16_000


def test_missing_files_folders_and_links_are_named(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "a.wav") == "no such file"
    (tmp_path / "folder.wav").mkdir()
    assert reason_of(tmp_path / "folder.wav") == "a folder, not a file"
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    assert reason_of(tmp_path / "link.wav") == "broken link"
    (tmp_path / "loop.flac").symlink_to(tmp_path / "loop.flac")
    assert reason_of(tmp_path / "loop.flac") == "broken link"
    os.mkfifo(tmp_path / "pipe.wav")
    assert reason_of(tmp_path / "pipe.wav") == "not a regular file"


READ_AS_NOBODY = """
import os, sys
import soundfile, soxr, speaker_encoder.audio as audio
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    audio.read_info(sys.argv[1])
except audio.AudioError as error:
    sys.exit(error.reason)
"""


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", WAVEFORM)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    path.chmod(0)
    result = subprocess.run(
        [sys.executable, "-c", READ_AS_NOBODY, str(path)], capture_output=True, text=True
    )
    assert result.stderr.strip() == "no permission to read it"


@pytest.mark.parametrize(
    "name", ["two words", 'it\'s "quoted"', "Σπύρος-说话人", "a:b", "100%{0}", "-dash", "#1?x=y"]
)
@pytest.mark.parametrize("extension", [".wav", ".flac", ".m4a"])
def test_unusual_names_are_read(tmp_path: Path, name: str, extension: str) -> None:
    path = write_audio(tmp_path / f"plain{extension}", WAVEFORM)
    renamed = path.rename(tmp_path / f"{name}{extension}")
    assert read_info(renamed).sampling_rate == 16_000
    assert len(read_audio(renamed, 16_000)) == 16_000


@pytest.mark.parametrize("extension", [".wav", ".m4a"])
def test_names_that_are_not_unicode_are_read(tmp_path: Path, extension: str) -> None:
    path = write_audio(tmp_path / f"plain{extension}", WAVEFORM)
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe" + extension.encode())
    shutil.copy(path, name)
    assert len(read_audio(name, 16_000)) == 16_000


def test_a_playlist_that_calls_itself_audio_opens_nothing(tmp_path: Path) -> None:
    target = write_audio(tmp_path / "target.wav", WAVEFORM)
    playlist = tmp_path / "list.m4a"
    playlist.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/{target}\n"
    )
    assert reason_of(playlist) == "not audio that can be decoded"


def test_video_without_sound_is_named(tmp_path: Path) -> None:
    import av

    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    assert reason_of(path) == "no audio stream"


def test_the_error_survives_the_way_from_a_worker(tmp_path: Path) -> None:
    error = AudioError(tmp_path / "a.wav", "truncated", "12 bytes")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (copy.path, copy.reason, str(copy)) == (error.path, error.reason, str(error))


def test_real_speech_of_every_corpus(data_dir: Path) -> None:
    for pattern in ("vctk/**/*.flac", "libritts/**/*.wav", "voxceleb/**/*.wav"):
        path = sorted(data_dir.glob(pattern))[0]
        expected, sampling_rate = soundfile.read(path, dtype="float32")
        np.testing.assert_array_equal(read_audio(path, sampling_rate), expected)
