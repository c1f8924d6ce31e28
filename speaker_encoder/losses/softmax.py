"""Softmax cross-entropy over the training speakers.

Source: the x-vector recipe, D. Snyder, D. Garcia-Romero, G. Sell, D. Povey, S. Khudanpur,
"X-Vectors: Robust DNN Embeddings for Speaker Recognition", ICASSP 2018; J. S. Chung et al., "In
Defence of Metric Learning for Speaker Recognition", Interspeech 2020, arXiv:2003.11982.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speaker_encoder.losses.classes import SpeakerClassifier


class SoftmaxLoss(SpeakerClassifier):
    """`mean_i( -log( exp(W[y_i] e_i + b[y_i]) / sum_j exp(W[j] e_i + b[j]) ) )`.

    The embeddings are not normalised. Any batch will do, also one utterance of each speaker.

    Attributes:
        linear: the weights (num_speakers, D) and biases (num_speakers,).

    Args:
        embedding_dim: D.
        num_speakers: number of training speakers.

    Raises:
        UserError: fewer than two speakers.
    """

    def __init__(self, embedding_dim: int, num_speakers: int) -> None:
        super().__init__("softmax", num_speakers)
        self.linear = nn.Linear(embedding_dim, num_speakers)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch.

        Args:
            embeddings: (B, D), any floating dtype; half precision is computed in float32.
            labels: (B,) training speakers, 0 .. num_speakers - 1.

        Returns:
            Scalar.

        Raises:
            UserError: a label that is no training speaker.
        """
        embeddings, labels = self.prepare(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            weight, bias = self.linear.weight.to(embeddings.dtype), self.linear.bias
            return F.cross_entropy(F.linear(embeddings, weight, bias.to(weight.dtype)), labels)
