"""Trials, scores, and error rates of speaker verification; numpy only."""

from speaker_encoder.verification.batches import EmbeddingHealth, embedding_health, in_batch_eer
from speaker_encoder.verification.calibration import Calibration, fit_calibration
from speaker_encoder.verification.cllr import actual_dcf, cllr, min_cllr
from speaker_encoder.verification.detection import DetectionFigures, detection_figures
from speaker_encoder.verification.evaluate import (
    Comparison,
    VerificationResult,
    compare,
    compare_scores,
    evaluate,
)
from speaker_encoder.verification.metrics import equal_error_rate, min_dcf
from speaker_encoder.verification.normalisation import ScoreNormaliser, cohort_means
from speaker_encoder.verification.trial_lists import read_trials
from speaker_encoder.verification.trials import Trials, make_trials, score_trials

__all__ = [
    "Calibration",
    "Comparison",
    "DetectionFigures",
    "EmbeddingHealth",
    "ScoreNormaliser",
    "Trials",
    "VerificationResult",
    "actual_dcf",
    "cllr",
    "cohort_means",
    "compare",
    "compare_scores",
    "detection_figures",
    "embedding_health",
    "equal_error_rate",
    "evaluate",
    "fit_calibration",
    "in_batch_eer",
    "make_trials",
    "min_cllr",
    "min_dcf",
    "read_trials",
    "score_trials",
]
