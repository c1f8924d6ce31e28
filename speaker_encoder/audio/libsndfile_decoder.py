"""Decodes wav, flac and their like with libsndfile, from any sample on."""

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio.formats import AudioError, AudioInfo, extension_of
from speaker_encoder.audio.member import find_member, open_member

if TYPE_CHECKING:
    import soundfile

# Samples per channel that are decoded at once; bounds the memory for long stereo files.
BLOCK_SAMPLES = 1 << 20


def read_header(path: str | os.PathLike[str]) -> AudioInfo:
    """What the header says, checked against what is there.

    Raises:
        AudioError: not audio, or truncated.
    """
    with _open(path, is_for_header=True) as file:
        info = AudioInfo(file.frames, file.samplerate, file.channels)
        if extension_of(path) == ".flac" and info.num_samples > 0:
            _check_last_sample(file, path)
    return info


def decode(
    path: str | os.PathLike[str], start: int, num_samples: int, info: AudioInfo
) -> NDArray[np.float32]:
    """The mono samples ``[start, start + num_samples)`` at the file's own sampling rate.

    Args:
        path: the file.
        start: first sample.
        num_samples: must end inside the recording.
        info: its header.

    Returns:
        (T,) float32; T <= ``num_samples``.

    Raises:
        AudioError: not audio, changed since its header was read, or truncated.
    """
    import soundfile

    with _open(path) as file:
        if file.samplerate != info.sampling_rate:
            raise AudioError(path, "changed since its header was read", "scan the corpus again")
        try:
            if start:
                file.seek(start)
            waveform = _read_mono(file, num_samples)
        except soundfile.LibsndfileError as error:
            raise AudioError(path, "truncated or damaged", error.error_string) from error
    missing = num_samples - len(waveform)
    if missing > 0:
        raise AudioError(path, "truncated", f"ends {missing} samples before its header says")
    return waveform


def _open(path: str | os.PathLike[str], *, is_for_header: bool = False) -> "soundfile.SoundFile":
    """The opened file; bytes, since a name need not be valid Unicode."""
    import soundfile

    member = find_member(path)
    try:
        if member is None:
            file = soundfile.SoundFile(os.fsencode(path))
        else:
            file = soundfile.SoundFile(open_member(member, is_for_header=is_for_header))
    except soundfile.LibsndfileError as error:
        from speaker_encoder.audio.header import check_is_file

        check_is_file(path)
        raise AudioError(path, "not audio that can be decoded", error.error_string) from error
    if file.format == "RAW":  # libsndfile's guess for any file called .au or .snd
        file.close()
        raise AudioError(path, "not audio that can be decoded", "no header")
    return file


def _read_mono(file: "soundfile.SoundFile", num_samples: int) -> NDArray[np.float32]:
    """Up to ``num_samples`` from here on, channels averaged."""
    if file.channels == 1:
        return file.read(num_samples, dtype="float32")
    waveform = np.empty(num_samples, dtype=np.float32)
    filled = 0
    while filled < num_samples:
        block = file.read(min(BLOCK_SAMPLES, num_samples - filled), dtype="float32")
        if len(block) == 0:
            break
        block.mean(axis=1, out=waveform[filled : filled + len(block)])
        filled += len(block)
    return waveform[:filled]


def _check_last_sample(file: "soundfile.SoundFile", path: str | os.PathLike[str]) -> None:
    """Decodes the last sample: a flac file keeps its length at its front, truncated or not."""
    import soundfile

    try:
        file.seek(file.frames - 1)
        num_read = len(file.read(1, dtype="float32"))
    except soundfile.LibsndfileError as error:
        raise AudioError(path, "truncated", error.error_string) from error
    if num_read != 1:
        raise AudioError(path, "truncated", f"its header promises {file.frames} samples")
