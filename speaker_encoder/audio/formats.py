"""What counts as an audio file, what its header says, and why one cannot be read."""

import os
from dataclasses import dataclass

from speaker_encoder.errors import UserError

# libsndfile seeks exactly in formats whose samples can be counted. In mp3 and Vorbis it does not:
# the first 5,000 samples after a seek in an mp3 are zero or noise (libsndfile 1.2.2), a seek into
# the last page of an ogg file is off. FFmpeg reads those without a difference.
# fmt: off
LIBSNDFILE_EXTENSIONS = frozenset({
    ".wav", ".flac", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph",
})
FFMPEG_EXTENSIONS = frozenset({
    ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".3gp",
    ".webm", ".mkv", ".mka", ".wma", ".amr", ".avi",
})
# fmt: on
AUDIO_EXTENSIONS = LIBSNDFILE_EXTENSIONS | FFMPEG_EXTENSIONS


class AudioError(UserError):
    """An audio file that cannot be used.

    Attributes:
        path: the file.
        reason: why, in words that are the same for every file of that kind, so that they can be
            counted; figures of the single file are only in the text of the error.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, detail: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        self.detail = detail
        super().__init__(f"{self.path}: {reason}" + (f" ({detail})" if detail else ""))

    def __reduce__(self) -> tuple[type["AudioError"], tuple[str, str, str]]:
        return type(self), (self.path, self.reason, self.detail)


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes:
        num_samples: per channel, at the file's own sampling rate.
        sampling_rate: in Hz.
        num_channels: 1 for mono.
    """

    num_samples: int
    sampling_rate: int
    num_channels: int

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.num_samples / self.sampling_rate


def extension_of(path: str | os.PathLike[str]) -> str:
    """The extension in lower case with its dot: ``.wav`` for ``a/B.WAV``."""
    return os.path.splitext(os.fspath(path))[1].lower()


def is_read_by_ffmpeg(path: str | os.PathLike[str]) -> bool:
    """Whether the file is read through PyAV; libsndfile reads all others."""
    return extension_of(path) in FFMPEG_EXTENSIONS
