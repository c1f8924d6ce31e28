"""Waveform in, waveform out: reads audio files and crops, always float32 mono in [-1, 1]."""

from speaker_encoder.audio.fit import fit_to_length
from speaker_encoder.audio.formats import AUDIO_EXTENSIONS, AudioError, AudioInfo
from speaker_encoder.audio.header import read_info
from speaker_encoder.audio.read import read_audio
from speaker_encoder.audio.resample import resampled_num_samples

__all__ = [
    "AUDIO_EXTENSIONS",
    "AudioError",
    "AudioInfo",
    "fit_to_length",
    "read_audio",
    "read_info",
    "resampled_num_samples",
]
