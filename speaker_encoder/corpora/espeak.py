"""Speaks sentences with eSpeak NG and writes them as flac; run as a process of its own.

The library keeps its state in globals and cannot be started twice, so ``speak_jobs`` never runs in
a process that does anything else.
"""

import ctypes
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLING_RATE = 16_000
# espeak_ng.h and speak_lib.h of eSpeak NG 1.52.
_OUTPUT_SYNCHRONOUS, _CHARS_UTF8 = 2, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
# The corners of the channel's gain curve.
_CHANNEL_HZ = (0, 250, 500, 1000, 2000, 4000, 8000)
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class SpeechJob:
    """One sentence to be spoken.

    Attributes:
        path: of the flac file below the folder that all go to; 16 kHz mono.
        text: an English sentence.
        voice: language and variant, ``en-us+f3``.
        pitch: 0 to 99, 50 is the voice's own.
        pitch_range: 0 (monotone) to 99.
        words_per_minute: 80 to 450.
        volume: 0 to 200, 100 is the voice's own.
        seed: of the voice's noise and of the recording channel.
        gain_db: the channel's gains are drawn from -gain_db to gain_db.
        snr_db: of the noise that is added.
    """

    path: str
    text: str
    voice: str
    pitch: int
    pitch_range: int
    words_per_minute: int
    volume: int
    seed: int
    gain_db: float
    snr_db: float


class Espeak:
    """The library, started once; every call speaks one sentence.

    Raises:
        RuntimeError: the library does not start or does not know a voice.
    """

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        # The library's buffer for this path is short (160 bytes); a relative one always fits.
        self._data_dir = data_dir = str(espeakng_loader.get_data_path())
        os.chdir(os.path.dirname(data_dir))
        relative = os.path.basename(data_dir).encode()
        self._rate = self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, relative, 0)
        if self._rate <= 0:
            raise RuntimeError(f"eSpeak NG did not start with the data in {data_dir}.")
        self._blocks: list[NDArray[np.int16]] = []
        self._callback: Callable[..., Any] = _CALLBACK(self._keep_block)
        self._library.espeak_SetSynthCallback(self._callback)

    def _keep_block(self, samples: Any, num_samples: int, _events: int) -> int:
        if samples and num_samples > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        return 0

    def speak(self, job: SpeechJob) -> NDArray[np.float32]:
        """The sentence as a (T,) float32 waveform at ``SAMPLING_RATE``."""
        import soxr

        library, text = self._library, job.text.encode()
        # For a variant that it does not know the library would speak with its plain voice.
        variant = os.path.join(self._data_dir, "voices", "!v", job.voice.partition("+")[2])
        if not os.path.isfile(variant) or library.espeak_SetVoiceByName(job.voice.encode()):
            raise RuntimeError(f"eSpeak NG does not know the voice {job.voice!r}.")
        values = (job.words_per_minute, job.volume, job.pitch, job.pitch_range)
        for parameter, value in zip((_RATE, _VOLUME, _PITCH, _RANGE), values, strict=True):
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_ng_SetRandSeed(ctypes.c_long(job.seed))
        self._blocks = []
        library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        library.espeak_Synchronize()
        if not self._blocks:
            raise RuntimeError(f"eSpeak NG said nothing with the voice {job.voice!r}.")
        waveform = np.concatenate(self._blocks).astype(np.float32) / 32768
        return soxr.resample(waveform, self._rate, SAMPLING_RATE)


def apply_channel(
    waveform: NDArray[np.float32], gain_db: float, snr_db: float, seed: int
) -> NDArray[np.float32]:
    """The waveform as if from some microphone in some room, so that voices are not too easy.

    Args:
        waveform: (T,).
        gain_db: the gain is drawn from -gain_db to gain_db at a few frequencies, and lies between.
        snr_db: level of the speech over the noise, whose spectrum falls by 3 dB per octave.
        seed: of both.

    Returns:
        (T,) float32 in [-1, 1].
    """
    generator = np.random.default_rng(seed)
    frequencies = np.fft.rfftfreq(len(waveform), 1 / SAMPLING_RATE)
    gains_db = generator.uniform(-gain_db, gain_db, len(_CHANNEL_HZ))
    gain = 10 ** (np.interp(frequencies, _CHANNEL_HZ, gains_db) / 20)
    speech = np.fft.irfft(np.fft.rfft(waveform) * gain, len(waveform))
    pink = np.fft.rfft(generator.standard_normal(len(waveform)))
    noise = np.fft.irfft(pink / np.sqrt(np.maximum(frequencies, 50.0)), len(waveform))
    noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    mixture = speech + noise
    return (mixture / max(1.0, np.abs(mixture).max())).astype(np.float32)


def dump_jobs(jobs: list[SpeechJob]) -> str:
    """The jobs as text for ``speak_jobs``."""
    return json.dumps([asdict(job) for job in jobs])


def speak_jobs(jobs_path: str, folder: str) -> None:
    """Speaks the jobs of a file, one after the other.

    Args:
        jobs_path: what ``dump_jobs`` gave.
        folder: where the flac files go.
    """
    import soundfile

    with open(jobs_path, encoding="ascii") as file:
        jobs = [SpeechJob(**record) for record in json.load(file)]
    folder = os.path.abspath(folder)
    espeak = Espeak()
    for job in jobs:
        path = os.path.join(folder, job.path)
        waveform = apply_channel(espeak.speak(job), job.gain_db, job.snr_db, job.seed)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        soundfile.write(path, waveform, SAMPLING_RATE, subtype="PCM_16", format="FLAC")
