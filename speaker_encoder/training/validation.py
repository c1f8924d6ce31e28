"""How good the model is on the validation speakers, with nothing in the model changed by it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from speaker_encoder.audio import AudioError
from speaker_encoder.corpora import Utterance
from speaker_encoder.errors import UserError
from speaker_encoder.training.dataset import CollateCrops, CropDataset, is_silent
from speaker_encoder.training.distributed import gather_rows, num_processes, process_rank
from speaker_encoder.training.sampler import SpeakerBatchSampler
from speaker_encoder.training.speech import SpeechReader
from speaker_encoder.verification import (
    Trials,
    VerificationResult,
    embedding_health,
    evaluate,
    in_batch_eer,
)

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

_BOOTSTRAP_IN_TRAINING = 100  # enough for a curve; the report of the run draws as many as wanted
_CHUNK_SECONDS = 600.0  # of audio in memory at once, 38 MB


@dataclass(frozen=True)
class Validation:
    """What one validation found.

    `embeddings`: (N, D) of the trials' utterances, rows L2-normalised. `batches`: per plotted
    validation batch, its embeddings (B, D) and utterance indices.
    """

    result: VerificationResult
    embeddings: np.ndarray
    metrics: dict[str, float]
    batches: list[tuple[np.ndarray, list[int]]]


class Validator:
    """Measures a model on trials of whole utterances, and on P x K batches as the original did.

    Args:
        utterances: the validation utterances; trials refer to them.
        trials: pairs of them.
        dataset: crops of them.
        sampler: P x K batches of them, the same at each validation.
        num_batches: how many of these are looked at.
        max_seconds: longer utterances are cut to their middle in trials.
        num_bootstrap: resamples for intervals.
        seed: of the bootstrap.
        trim_silence: as of the crops.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        trials: Trials,
        dataset: CropDataset,
        sampler: SpeakerBatchSampler,
        num_batches: int,
        max_seconds: float,
        num_bootstrap: int,
        seed: int,
        trim_silence: str = "off",
    ) -> None:
        self.utterances = utterances
        self.trials = trials
        self._dataset = dataset
        self._sampler = sampler
        self._num_batches = num_batches
        self._max_seconds = max_seconds
        self._num_bootstrap = num_bootstrap
        self._seed = seed
        self._trim_silence = trim_silence
        self.speaker_ids = [utterance.speaker_id for utterance in utterances]

    def __call__(
        self, model: SpeakerEncoder, loss: nn.Module | None, *, draw_every: int
    ) -> Validation:
        """Validates; the model is in eval mode meanwhile, and as it was afterwards.

        Args:
            model: the encoder, on its device.
            loss: the training loss, or None where it has no meaning on other speakers than those
                of training.
            draw_every: every how many P x K batches one is kept for a picture; 0 for none.

        Raises:
            UserError: an utterance of the trials cannot be read.
        """
        was_training = model.training
        model.eval()
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                embeddings = self._embed(model)
                _refuse_diverged(embeddings)
                metrics, batches = self._crops(model, loss, draw_every)
        finally:
            model.train(was_training)
        result = evaluate(
            embeddings,
            self.trials,
            self.speaker_ids,
            num_bootstrap=min(self._num_bootstrap, _BOOTSTRAP_IN_TRAINING),
            seed=self._seed,
        )
        mean_cosine, effective_rank = embedding_health(embeddings)
        metrics |= {
            "eer": result.eer,
            "eer_low": result.eer_interval[0],
            "eer_high": result.eer_interval[1],
            "min_dcf": result.min_dcf,
            "min_dcf_low": result.min_dcf_interval[0],
            "min_dcf_high": result.min_dcf_interval[1],
            "mean_cosine": mean_cosine,
            "effective_rank": effective_rank,
        }
        return Validation(result, embeddings, metrics, batches)

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
        utterance = self.utterances[place]
        limit = round(self._max_seconds * sampling_rate)
        try:
            start = max(0, (reader.num_samples(place) - limit) // 2)
            waveform = reader.read(place, start, limit)
            if len(waveform) < least:
                raise AudioError(
                    utterance.path,
                    f"{len(waveform) / sampling_rate:.3f} s long, the model needs at least "
                    f"{least / sampling_rate:.3f} s",
                )
            if is_silent(waveform):
                raise AudioError(utterance.path, "digital silence")
            return waveform
        except AudioError as error:
            raise UserError(
                f"A validation utterance cannot be used: {error}. Repair it, or take it out of the "
                "validation data."
            ) from error

    def _crops(
        self, model: SpeakerEncoder, loss: nn.Module | None, draw_every: int
    ) -> tuple[dict[str, float], list[tuple[np.ndarray, list[int]]]]:
        """Gives loss and in-batch EER over the P x K batches, which every process computes."""
        self._sampler.set_epoch(0)
        collate = CollateCrops()
        device = next(model.parameters()).device
        losses, error_rates, drawn = [], [], []
        size = self._sampler.batch_size
        keys: list = []
        epoch = 0
        while len(keys) < self._num_batches * size:
            self._sampler.set_epoch(epoch)
            keys.extend(self._sampler)
            epoch += 1
        for number in range(self._num_batches):
            batch = collate([self._dataset[key] for key in keys[number * size :][:size]])
            if batch["failures"]:
                raise UserError(batch["failures"][0])
            labels = batch["labels"].to(device)
            embeddings = model(batch["input_values"].to(device)).embeddings.float()
            if loss is not None:
                losses.append(float(loss(embeddings, labels)))
            error_rates.append(in_batch_eer(embeddings.cpu().numpy(), labels.cpu().numpy()))
            if draw_every and number % draw_every == 0:
                drawn.append((embeddings.cpu().numpy(), batch["utterances"].tolist()))
        metrics = {"batch_eer": sum(error_rates) / len(error_rates)}
        if losses:
            metrics["loss"] = sum(losses) / len(losses)
        return metrics, drawn


def _refuse_diverged(embeddings: np.ndarray) -> None:
    """Checks that validation embeddings (N, D) are numbers.

    Raises:
        UserError: the weights have diverged.
    """
    num_broken = int((~np.isfinite(embeddings).all(axis=1)).sum())
    if num_broken:
        raise UserError(
            f"The embeddings of {num_broken} of {len(embeddings)} validation utterances are not "
            "finite: the weights have diverged. Lower learning_rate_init, and start anew or from "
            "a checkpoint of an earlier step."
        )


def num_validation_batches(num_utterances: int, batch_size: int, max_epochs: float) -> int:
    """Gives how many P x K batches go `max_epochs` times through the validation utterances."""
    return max(1, math.ceil(num_utterances * max_epochs / batch_size))
