"""Reads and checks the headers of audio files."""

import os
import stat

from speaker_encoder.audio import ffmpeg_decoder, libsndfile_decoder
from speaker_encoder.audio.formats import AudioError, AudioInfo, is_read_by_ffmpeg
from speaker_encoder.audio.member import find_member
from speaker_encoder.audio.promised_size import missing_bytes


def read_info(path: str | os.PathLike[str]) -> AudioInfo:
    """The length, sampling rate and channels of an audio file, from its header alone.

    Args:
        path: any format of ``AUDIO_EXTENSIONS``.

    Raises:
        AudioError: there is no such file, it is not readable, empty, not audio, has no samples,
            or holds less than its header promises.
    """
    check_is_file(path)
    if missing := missing_bytes(path):
        raise AudioError(path, "truncated", f"{missing} bytes fewer than its header promises")
    decoder = ffmpeg_decoder if is_read_by_ffmpeg(path) else libsndfile_decoder
    info = decoder.read_header(path)
    if info.num_samples <= 0:
        raise AudioError(path, "no audio samples")
    return info


def check_is_file(path: str | os.PathLike[str]) -> None:
    """Checks what the file system knows of the file; of a recording in a shard, nothing.

    Raises:
        AudioError: no such file, a broken link, a folder, a device, 0 bytes, no permission.
    """
    if find_member(path) is not None:
        return
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        reason = "broken link" if os.path.islink(path) else "no such file"
        raise AudioError(path, reason) from error
    except PermissionError as error:
        raise AudioError(path, "no permission to read it") from error
    except OSError as error:
        reason = "broken link" if os.path.islink(path) else "cannot be read"
        raise AudioError(path, reason, str(error.strerror)) from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(path, "a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(path, "not a regular file")
    if status.st_size == 0:
        raise AudioError(path, "empty file", "0 bytes")
    if not os.access(path, os.R_OK):
        raise AudioError(path, "no permission to read it")
