"""Trials, scores, and error rates of speaker verification; numpy only."""

from speaker_encoder.verification.batches import EmbeddingHealth, embedding_health, in_batch_eer
from speaker_encoder.verification.evaluate import (
    Comparison,
    VerificationResult,
    compare,
    evaluate,
)
from speaker_encoder.verification.metrics import equal_error_rate, min_dcf
from speaker_encoder.verification.trial_lists import read_trials
from speaker_encoder.verification.trials import Trials, make_trials, score_trials

__all__ = [
    "Comparison",
    "EmbeddingHealth",
    "Trials",
    "VerificationResult",
    "compare",
    "embedding_health",
    "equal_error_rate",
    "evaluate",
    "in_batch_eer",
    "make_trials",
    "min_dcf",
    "read_trials",
    "score_trials",
]
