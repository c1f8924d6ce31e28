"""Trials of whole utterances, and how a model does on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from speaker_encoder.audio import AudioError
from speaker_encoder.corpora import Utterance
from speaker_encoder.errors import UserError
from speaker_encoder.training.dataset import is_silent
from speaker_encoder.training.distributed import gather_rows, num_processes, process_rank
from speaker_encoder.training.speech import SpeechReader
from speaker_encoder.verification import Trials

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

_CHUNK_SECONDS = 600.0  # of audio in memory at once, 38 MB


class TrialSet:
    """Trials over utterances.

    Args:
        name: "validation" or "reference", for messages.
        utterances: N; trials refer to them.
        trials: pairs of them, with labels.
        max_seconds: longer utterances are cut to their middle.
        trim_silence: as of the crops of training.
    """

    def __init__(
        self,
        name: str,
        utterances: Sequence[Utterance],
        trials: Trials,
        max_seconds: float,
        trim_silence: str = "off",
    ) -> None:
        self.name = name
        self.utterances = utterances
        self.trials = trials
        self._max_seconds = max_seconds
        self._trim_silence = trim_silence
        self.speaker_ids = [utterance.speaker_id for utterance in utterances]

    def embed(self, model: SpeakerEncoder) -> np.ndarray:
        """Gives (N, D) embeddings of all utterances, each process its share.

        Args:
            model: in eval mode, on its device.

        Raises:
            UserError: an utterance cannot be read, or the embeddings are not finite.
        """
        with torch.no_grad():
            embeddings = self._embed(model)
        _refuse_diverged(embeddings, self.name)
        return embeddings

    def _embed(self, model: SpeakerEncoder) -> np.ndarray:
        """Gives (N, D) embeddings of all utterances, each process its share."""
        by_length = sorted(
            range(len(self.utterances)), key=lambda place: self.utterances[place].seconds
        )
        places = by_length[process_rank() :: num_processes()]
        rows = [torch.zeros((0, model.embedding_dim))]
        reader = SpeechReader(self.utterances, model.sampling_rate, self._trim_silence)
        for chunk in self._chunks(places):
            waveforms = [
                self._middle(reader, place, model.sampling_rate, model.min_num_samples)
                for place in chunk
            ]
            rows.append(model.encode(waveforms, show_progress=False, allow_untrained_head=True))
        return gather_rows(torch.cat(rows), places, len(self.utterances)).numpy()

    def _chunks(self, places: Sequence[int]) -> Iterator[list[int]]:
        """Gives the places in pieces of bounded total length, so that memory is bounded."""
        chunk: list[int] = []
        seconds = 0.0
        for place in places:
            chunk.append(place)
            seconds += min(self.utterances[place].seconds, self._max_seconds)
            if seconds >= _CHUNK_SECONDS:
                yield chunk
                chunk, seconds = [], 0.0
        if chunk:
            yield chunk

    def _middle(
        self, reader: SpeechReader, place: int, sampling_rate: int, least: int
    ) -> np.ndarray:
        """Reads an utterance, or its middle when it is longer than the limit.

        Raises:
            UserError: it cannot be read, has less than `least` samples, or is silent.
        """
        try:
            return read_middle(reader, place, self._max_seconds, sampling_rate, least)
        except AudioError as error:
            raise UserError(
                f"A {self.name} utterance cannot be used: {error}. Repair it, or take it out of "
                f"the {self.name} data."
            ) from error


def read_middle(
    reader: SpeechReader, place: int, max_seconds: float, sampling_rate: int, least: int
) -> np.ndarray:
    """Reads an utterance, or its middle when it is longer than `max_seconds`.

    Args:
        reader: of the utterances.
        place: of the utterance among them.
        max_seconds: the limit.
        sampling_rate: Hz, of the model.
        least: samples that the model needs.

    Returns:
        (T,) float32.

    Raises:
        AudioError: it cannot be read, has less than `least` samples, or is silent.
    """
    path = reader.utterances[place].path
    limit = round(max_seconds * sampling_rate)
    start = max(0, (reader.num_samples(place) - limit) // 2)
    waveform = reader.read(place, start, limit)
    if len(waveform) < least:
        raise AudioError(
            path,
            f"{len(waveform) / sampling_rate:.3f} s long, the model needs at least "
            f"{least / sampling_rate:.3f} s",
        )
    if is_silent(waveform):
        raise AudioError(path, "digital silence")
    return waveform


def _refuse_diverged(embeddings: np.ndarray, name: str) -> None:
    """Checks that embeddings (N, D) are numbers.

    Raises:
        UserError: the weights have diverged.
    """
    num_broken = int((~np.isfinite(embeddings).all(axis=1)).sum())
    if num_broken:
        raise UserError(
            f"The embeddings of {num_broken} of {len(embeddings)} {name} utterances are not "
            "finite: the weights have diverged. Lower learning_rate_init, and start anew or from "
            "a checkpoint of an earlier step."
        )
