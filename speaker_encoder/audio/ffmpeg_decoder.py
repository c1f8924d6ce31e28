"""Decodes mp3, ogg, m4a, aac, webm and video with PyAV, from any sample on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio.formats import AudioError, AudioInfo
from speaker_encoder.audio.member import find_member, open_binary, open_member

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

# Decoded and thrown away before a crop: lossy codecs need some frames to find their state again.
PREROLL_SECONDS = 0.4
# The length in a header may count the encoder's padding, or be rounded to milliseconds.
INEXACT_SECONDS = 0.25
_MP3_HEAD_BYTES = 1 << 16
# Codecs whose frames all have one length, so that a time stamp in milliseconds tells the sample.
_CONSTANT_FRAME_CODECS = frozenset({"aac", "opus", "mp3", "ac3", "flac"})


class _PositionUnknownError(Exception):
    """After a seek it cannot be said which sample a frame starts with."""


def read_header(path: str | os.PathLike[str]) -> AudioInfo:
    """What the header says of the first audio stream.

    Raises:
        AudioError: not audio, or without an audio stream.
    """
    with _open(path) as (container, stream):
        rate = stream.codec_context.sample_rate
        if _has_no_length(path, container):
            seconds = sum(
                float(packet.duration * packet.time_base)
                for packet in container.demux(stream)
                if packet.size and packet.duration and packet.time_base
            )
        elif stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / 1_000_000
        else:
            seconds = _last_time_stamp(container, stream)
        return AudioInfo(round(seconds * rate), rate, stream.codec_context.channels)


def decode(
    path: str | os.PathLike[str], start: int, num_samples: int, info: AudioInfo
) -> NDArray[np.float32]:
    """The mono samples ``[start, start + num_samples)`` at the file's own sampling rate.

    Args:
        path: the file.
        start: first sample, counted from the first one that the whole file decodes to.
        num_samples: how many.
        info: its header.

    Returns:
        (T,) float32; T <= ``num_samples``. AAC may code noise as "noise"; such noise is drawn anew
        wherever decoding starts, all else is as in the whole file.

    Raises:
        AudioError: not audio, changed since its header was read, truncated or damaged.
    """
    from av.error import FFmpegError

    try:
        try:
            waveform = _decode_span(path, start, num_samples, info, may_seek=True)
        except _PositionUnknownError:
            waveform = _decode_span(path, start, num_samples, info, may_seek=False)
    except FFmpegError as error:
        raise AudioError(path, "truncated or damaged", str(error.strerror)) from error
    missing = num_samples - len(waveform)
    if missing > INEXACT_SECONDS * info.sampling_rate:
        raise AudioError(path, "truncated", f"ends {missing} samples before its header says")
    return waveform


@contextmanager
def _open(
    path: str | os.PathLike[str],
) -> "Iterator[tuple[InputContainer, av.AudioStream]]":
    """The container and its first audio stream.

    The protocol is given, and no other allowed: a name with a colon is not a URL, and a playlist
    that calls itself m4a opens no connection.
    """
    import av
    from av.error import FFmpegError

    from speaker_encoder.audio.header import check_is_file

    member = find_member(path)
    try:
        if member is None:
            url = "file:" + os.path.abspath(os.fspath(path))
            container = av.open(url, options={"protocol_whitelist": "file"})
        else:
            options = {"protocol_whitelist": "none"}
            container = av.open(open_member(member), "r", options=options)
    except FFmpegError as error:
        check_is_file(path)
        detail = str(error.strerror)
        raise AudioError(path, "not audio that can be decoded", detail) from error
    with container:
        if not container.streams.audio:
            raise AudioError(path, "no audio stream")
        stream = container.streams.audio[0]
        if not stream.codec_context.sample_rate:
            raise AudioError(path, "not audio that can be decoded", "no sampling rate")
        yield container, stream


def _decode_span(
    path: str | os.PathLike[str], start: int, num_samples: int, info: AudioInfo, may_seek: bool
) -> NDArray[np.float32]:
    waveform = np.empty(num_samples, dtype=np.float32)
    stop, filled = start + num_samples, 0
    with _open(path) as (container, stream):
        for position, frame in _frames_from(container, stream, start, may_seek):
            if frame.sample_rate != info.sampling_rate:
                raise AudioError(path, "sampling rate not that of the header", "scan again")
            if position > start + filled:
                raise _PositionUnknownError
            if position + frame.samples <= start:
                continue
            samples = _to_mono(frame)[start + filled - position : stop - position]
            waveform[filled : filled + len(samples)] = samples
            filled += len(samples)
            if filled == num_samples:
                break
    return waveform[:filled]


def _frames_from(
    container: "InputContainer", stream: "av.AudioStream", start: int, may_seek: bool
) -> "Iterator[tuple[int, av.AudioFrame]]":
    """Frames with the sample that each starts with, from some time before ``start`` on."""
    rate = stream.codec_context.sample_rate
    target = start - round(PREROLL_SECONDS * rate)
    if target > 0 and container.format.name == "aac":
        yield from _frames_after_packets(container, stream, target)
        return
    if target > rate and may_seek and stream.time_base is not None:
        is_exact = stream.time_base * rate <= 1
        if is_exact or stream.codec_context.name in _CONSTANT_FRAME_CODECS:
            yield from _frames_after_seek(container, stream, target, is_exact)
            return
    position = 0
    for frame in container.decode(stream):
        yield position, frame
        position += frame.samples


def _frames_after_packets(
    container: "InputContainer", stream: "av.AudioStream", target: int
) -> "Iterator[tuple[int, av.AudioFrame]]":
    """Frames of a bare aac stream, which has no index: packets are counted, not decoded."""
    rate, position = stream.codec_context.sample_rate, 0
    for packet in container.demux(stream):
        if packet.duration is None or packet.time_base is None:
            continue
        num_samples = round(packet.duration * packet.time_base * rate)
        if position + num_samples <= target:
            position += num_samples
            continue
        for frame in packet.decode():
            yield position, frame
            position += frame.samples


def _frames_after_seek(
    container: "InputContainer", stream: "av.AudioStream", target: int, is_exact: bool
) -> "Iterator[tuple[int, av.AudioFrame]]":
    """Frames from shortly before the sample ``target`` on, found through the container's index.

    Where time stamps are coarser than a sample, all frames but the first and the last have one
    length, and each starts at a multiple of it behind the first.

    Raises:
        _PositionUnknownError: the time stamps are not of that kind.
    """
    assert stream.time_base is not None
    samples_per_tick = stream.time_base * stream.codec_context.sample_rate
    first = next(container.decode(stream), None)
    if first is None or first.pts is None:
        raise _PositionUnknownError
    container.seek(first.pts + int(target / samples_per_tick), stream=stream)
    position: int | None = None
    for frame in container.decode(stream):
        if frame.pts is None:
            raise _PositionUnknownError
        stamp = float((frame.pts - first.pts) * samples_per_tick)
        if position is None:
            phase = 0 if is_exact else first.samples % frame.samples
            period = 1 if is_exact else frame.samples
            position = round((stamp - phase) / period) * period + phase
        # The first frame may lack samples at its front, which its time stamp does not tell.
        if abs(stamp - position) > max(1.0, 2 * float(samples_per_tick)):
            raise _PositionUnknownError
        yield position, frame
        position += frame.samples


def _has_no_length(path: str | os.PathLike[str], container: "InputContainer") -> bool:
    """Whether FFmpeg only guesses the length from the bit rate: bare aac, and mp3 without a tag."""
    if container.format.name == "aac":
        return True
    if container.format.name != "mp3":
        return False
    with open_binary(path) as file:
        head = file.read(_MP3_HEAD_BYTES)
    return not any(tag in head for tag in (b"Xing", b"Info", b"VBRI"))


def _last_time_stamp(container: "InputContainer", stream: "av.AudioStream") -> float:
    """The end of the last packet in seconds, for containers that were streamed."""
    end = 0.0
    for packet in container.demux(stream):
        if packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
    return end


def _to_mono(frame: "av.AudioFrame") -> NDArray[np.float32]:
    """The frame's samples as (T,) float32 in [-1, 1], channels averaged."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T  # (C, T)
    if samples.dtype.kind == "u":
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = samples.astype(np.float32) / full_scale
    return samples.mean(axis=0, dtype=np.float32)
