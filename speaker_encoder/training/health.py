"""Signs that a training is going wrong, in plain words."""

from __future__ import annotations

import logging
import math

COLLAPSED_COSINE = 0.99  # mean cosine of different utterances; random encoders have 0.97
COLLAPSED_RANK = 2.0  # effective number of directions that embeddings use
EXPLODING_FACTOR = 5.0  # of the original: this many times the loss of the step before

_logger = logging.getLogger(__name__)


def is_exploding(loss: float, previous_loss: float | None) -> bool:
    """Is the loss at least five times that of the step before."""
    if previous_loss is None or not math.isfinite(previous_loss) or previous_loss <= 0:
        return False
    return loss >= EXPLODING_FACTOR * previous_loss


class CollapseWatch:
    """Warns once when embeddings become nearly the same for all voices, and when that ends."""

    def __init__(self) -> None:
        self._is_collapsed = False

    def observe(self, mean_cosine: float, effective_rank: float, step: int) -> None:
        """Takes the mean off-diagonal cosine and the effective rank of some embeddings."""
        is_collapsed = mean_cosine > COLLAPSED_COSINE or effective_rank < COLLAPSED_RANK
        if is_collapsed and not self._is_collapsed:
            _logger.warning(
                "step %d: embeddings have collapsed (mean cosine between utterances %.3f, "
                "effective rank %.1f): all voices look alike. Lower learning_rate_init, or use "
                "more speakers per batch.",
                *(step, mean_cosine, effective_rank),
            )
        elif self._is_collapsed and not is_collapsed:
            _logger.info("step %d: embeddings are spread out again", step)
        self._is_collapsed = is_collapsed
