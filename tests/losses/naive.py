"""The losses as their papers write them, one number at a time."""

import torch
from torch import Tensor


def random_batch(
    num_speakers: int, num_utterances: int, dim: int, seed: int
) -> tuple[Tensor, Tensor]:
    """(B, D) float64 and shuffled labels 0 .. P - 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_speakers).repeat_interleave(num_utterances)
    labels = labels[torch.randperm(len(labels), generator=generator)]
    return torch.randn(len(labels), dim, generator=generator, dtype=torch.float64), labels


def by_speaker(embeddings: Tensor, labels: Tensor) -> list[list[Tensor]]:
    """Each speaker's rows in the order of the batch, speakers in ascending order."""
    speakers = sorted(set(labels.tolist()))
    return [
        [row for row, label in zip(embeddings, labels.tolist(), strict=True) if label == speaker]
        for speaker in speakers
    ]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Scalar."""
    return (a @ b) / (a.norm() * b.norm())


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Of two L2-normalised vectors: scalar."""
    return ((a / a.norm() - b / b.norm()) ** 2).sum()


def cross_entropy(logits: list[Tensor], target: int) -> Tensor:
    """`-log( exp(logits[target]) / sum exp(logits) )`."""
    return -torch.log(torch.exp(logits[target]) / sum(torch.exp(logit) for logit in logits))


def mean(values: list[Tensor]) -> Tensor:
    """Scalar."""
    return sum(values) / len(values)
