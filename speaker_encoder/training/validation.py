"""How good the model is on the validation speakers, with nothing in the model changed by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.training.dataset import CollateCrops, CropDataset
from speaker_encoder.training.sampler import SpeakerBatchSampler
from speaker_encoder.training.trial_set import TrialSet
from speaker_encoder.verification import (
    VerificationResult,
    embedding_health,
    evaluate,
    in_batch_eer,
)

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

_BOOTSTRAP_IN_TRAINING = 100  # enough for a curve; the report of the run draws as many as wanted


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
        trial_set: the validation trials.
        reference: trials of speech on which the model must not get worse; None: none.
        dataset: crops of the validation utterances.
        sampler: P x K batches of them, the same at each validation.
        num_batches: how many of these are looked at.
        num_bootstrap: resamples for intervals.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        trial_set: TrialSet,
        reference: TrialSet | None,
        dataset: CropDataset,
        sampler: SpeakerBatchSampler,
        num_batches: int,
        num_bootstrap: int,
        seed: int,
    ) -> None:
        self.trial_set = trial_set
        self.reference = reference
        self._dataset = dataset
        self._sampler = sampler
        self._num_batches = num_batches
        self._num_bootstrap = num_bootstrap
        self._seed = seed

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
                embeddings = self.trial_set.embed(model)
                metrics, batches = self._crops(model, loss, draw_every)
                if self.reference is not None:
                    found = self._evaluate(self.reference, self.reference.embed(model))
                    metrics |= _eer_metrics(found, "reference_")
        finally:
            model.train(was_training)
        result = self._evaluate(self.trial_set, embeddings)
        mean_cosine, effective_rank = embedding_health(embeddings)
        metrics |= {
            **_eer_metrics(result),
            "min_dcf": result.min_dcf,
            "min_dcf_low": result.min_dcf_interval[0],
            "min_dcf_high": result.min_dcf_interval[1],
            "mean_cosine": mean_cosine,
            "effective_rank": effective_rank,
        }
        return Validation(result, embeddings, metrics, batches)

    def _evaluate(self, trial_set: TrialSet, embeddings: np.ndarray) -> VerificationResult:
        return evaluate(
            embeddings,
            trial_set.trials,
            trial_set.speaker_ids,
            num_bootstrap=min(self._num_bootstrap, _BOOTSTRAP_IN_TRAINING),
            seed=self._seed,
        )

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


def _eer_metrics(found: VerificationResult, prefix: str = "") -> dict[str, float]:
    low, high = found.eer_interval
    return {f"{prefix}eer": found.eer, f"{prefix}eer_low": low, f"{prefix}eer_high": high}


def num_validation_batches(num_utterances: int, batch_size: int, max_epochs: float) -> int:
    """Gives how many P x K batches go `max_epochs` times through the validation utterances."""
    return max(1, math.ceil(num_utterances * max_epochs / batch_size))
