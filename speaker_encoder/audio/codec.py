"""Sends speech through a codec and back, in memory: what a telephone or a website does to it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio.resample import resample
from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    import av

MIN_SECONDS = 0.05  # less is no frame of most codecs


@dataclass(frozen=True)
class Codec:
    """How FFmpeg makes a coding.

    Attributes:
        encoder: FFmpeg's name of it.
        container: the format it is put into; one that says how many samples to skip.
        sampling_rate: in Hz, that it codes at.
        bit_rates: in bit/s, one of which is drawn; 0 where it has no choice.
    """

    encoder: str
    container: str
    sampling_rate: int
    bit_rates: tuple[int, ...] = (0,)


CODECS = {
    "mp3": Codec("libmp3lame", "mp3", 16000, (16000, 24000, 32000, 64000)),
    "opus": Codec("libopus", "ogg", 16000, (8000, 12000, 16000, 32000)),
    "aac": Codec("aac", "mp4", 16000, (16000, 24000, 32000)),
    "mulaw": Codec("pcm_mulaw", "wav", 8000),
    "alaw": Codec("pcm_alaw", "wav", 8000),
    "g722": Codec("g722", "wav", 16000),
    "amr": Codec("libopencore_amrnb", "amr", 8000, (4750, 7400, 12200)),
}
"""Name in the config -> coding. GSM full rate has no encoder in PyAV; AMR is its successor."""


def check_codecs(names: Iterable[str]) -> None:
    """Checks that the installed PyAV can encode with these codecs.

    Raises:
        UserError: it cannot.
    """
    import av

    missing = []
    for name in names:
        try:
            av.Codec(CODECS[name].encoder, "w")
        except ValueError:  # av.codec.codec.UnknownCodecError is one
            missing.append(f"{name} ({CODECS[name].encoder})")
    if missing:
        raise UserError(
            f"augment_codecs: the installed PyAV {av.__version__} has no encoder for "
            f"{', '.join(missing)}. Leave it out, or install another build of av."
        )


def transcode(
    waveform: NDArray[np.float32], sampling_rate: int, name: str, bit_rate: int = 0
) -> NDArray[np.float32]:
    """A waveform as it comes out of a codec, at its own level and as long as before.

    Args:
        waveform: (T,); one shorter than `MIN_SECONDS` comes back as it is.
        sampling_rate: in Hz.
        name: of `CODECS`.
        bit_rate: in bit/s, where the codec has a choice.

    Returns:
        (T,) float32. Where no container tells a codec's delay, up to 10 ms of it are left.
    """
    num_samples = len(waveform)
    if num_samples < MIN_SECONDS * sampling_rate:
        return waveform
    codec = CODECS[name]
    peak = max(1.0, float(np.abs(waveform).max()))  # integer codings would clip
    coded_at = resample(waveform / np.float32(peak), sampling_rate, codec.sampling_rate)
    decoded, rate = _decode(_encode(coded_at, codec, bit_rate))
    found = resample(decoded, rate, sampling_rate)[:num_samples] * np.float32(peak)
    return np.pad(found, (0, num_samples - len(found)))


def _encode(waveform: NDArray[np.float32], codec: Codec, bit_rate: int) -> io.BytesIO:
    """The file that a codec makes of a waveform at the codec's rate."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=codec.container) as container:
        stream = cast(
            "av.AudioStream",
            container.add_stream(codec.encoder, rate=codec.sampling_rate, layout="mono"),
        )
        stream.codec_context.thread_count = 1
        if bit_rate:
            stream.bit_rate = bit_rate
        samples = np.ascontiguousarray(waveform[None], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = codec.sampling_rate
        frame.pts = 0
        converter = av.AudioResampler(stream.codec_context.format.name, "mono", codec.sampling_rate)
        for converted in converter.resample(frame):
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    file.seek(0)
    return file


def _decode(file: io.BytesIO) -> tuple[NDArray[np.float32], int]:
    """The waveform (T,) in a file, and its sampling rate."""
    import av

    with av.open(file, "r") as container:
        converter = av.AudioResampler("fltp", "mono")
        parts, rate = [], 0
        for frame in container.decode(audio=0):
            rate = frame.sample_rate
            parts += [_samples(part) for part in converter.resample(frame)]
    return np.concatenate(parts), rate


def _samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    return frame.to_ndarray().reshape(-1).astype(np.float32, copy=False)
