"""What batch losses share: the batch sorted by speaker, and a scale that stays positive."""

import torch
from torch import Tensor, nn

from speaker_encoder.errors import UserError

MIN_SCALE = 1e-6


def full_precision(embeddings: Tensor, labels: Tensor, loss_name: str) -> Tensor:
    """The embeddings (B, D) in float32, or float64 where they are that.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{loss_name} needs embeddings (B, D) and labels (B,), "
            f"found {tuple(embeddings.shape)} and {tuple(labels.shape)}."
        )
    is_half = embeddings.dtype in (torch.float16, torch.bfloat16)
    return embeddings.float() if is_half else embeddings


def group_by_speaker(embeddings: Tensor, labels: Tensor, loss_name: str) -> Tensor:
    """The batch sorted by speaker.

    Args:
        embeddings: (B, D), any floating dtype.
        labels: (B,) integer speaker numbers, every speaker K >= 2 times, in any order.
        loss_name: for messages.

    Returns:
        (P, K, D) float32 or float64, speakers in ascending order of label, a speaker's utterances
        in the order of the batch.

    Raises:
        UserError: fewer than two speakers or utterances, or not equally many of each.
        ValueError: shapes that do not belong together.
    """
    embeddings = full_precision(embeddings, labels, loss_name)
    # B is small: grouping on the CPU costs one synchronisation, or none for CPU labels.
    sorted_labels, order = labels.detach().cpu().sort(stable=True)
    speakers, counts = sorted_labels.unique_consecutive(return_counts=True)
    _check_counts(speakers.tolist(), counts.tolist(), loss_name)
    if not torch.equal(order, torch.arange(len(order))):
        embeddings = embeddings.index_select(0, order.to(embeddings.device, non_blocking=True))
    return embeddings.reshape(len(speakers), -1, embeddings.shape[1])


def positive_scale(w: nn.Parameter, is_training: bool) -> Tensor:
    """`max(w, MIN_SCALE)`, and in training `w` itself is projected back to that.

    The projection is in the stored parameter, so its gradient never dies; the parameter can only
    be below `MIN_SCALE` between an optimiser step and the next forward.
    """
    if is_training:
        # .data: two forwards before one backward must not count as a change of w.
        w.data.clamp_(min=MIN_SCALE)
    return w.clamp(min=MIN_SCALE)


def require_positive(loss_name: str, option: str, value: float) -> float:
    """Checks an option of a loss.

    Raises:
        UserError: it is not above 0.
    """
    if not value > 0:
        raise UserError(f"{loss_name} needs a positive {option}, found {value!r}.")
    return float(value)


def _check_counts(speakers: list[int], counts: list[int], loss_name: str) -> None:
    if len(speakers) < 2:
        raise UserError(
            f"{loss_name} needs at least 2 speakers in a batch, found {len(speakers)}. "
            "Raise speakers_per_batch, or add speakers."
        )
    fewest, most = min(counts), max(counts)
    speaker_of_fewest = speakers[counts.index(fewest)]
    if fewest < 2:
        raise UserError(
            f"{loss_name} needs at least 2 utterances of each speaker in a batch, found "
            f"{fewest} for speaker {speaker_of_fewest}. Raise utterances_per_speaker."
        )
    if fewest != most:
        raise UserError(
            f"{loss_name} needs equally many utterances of each speaker in a batch, found "
            f"{fewest} for speaker {speaker_of_fewest} and {most} for speaker "
            f"{speakers[counts.index(most)]}."
        )
