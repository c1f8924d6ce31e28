"""Softmax and angular prototypical loss together.

Source: clovaai/voxceleb_trainer, `loss/softmaxproto.py`; H. S. Heo, B.-J. Lee, J. Huh, J. S. Chung,
"Clova Baseline System for the VoxCeleb Speaker Recognition Challenge 2020", arXiv:2009.14153.
"""

from speaker_encoder.losses.angular_prototypical import AngularPrototypicalLoss
from speaker_encoder.losses.softmax import SoftmaxLoss
from speaker_encoder.losses.weighted_sum import WeightedSum


class SoftmaxPrototypicalLoss(WeightedSum):
    """`softmax` over all utterances plus `angular_prototypical`, each with weight 1.

    Args:
        embedding_dim: D.
        num_speakers: number of training speakers.
        init_w: initial scale of the angular prototypical part, positive.
        init_b: its initial offset.

    Raises:
        UserError: a value that is impossible.
    """

    def __init__(
        self, embedding_dim: int, num_speakers: int, init_w: float = 10.0, init_b: float = -5.0
    ) -> None:
        parts = (SoftmaxLoss(embedding_dim, num_speakers), AngularPrototypicalLoss(init_w, init_b))
        super().__init__(parts, (1.0, 1.0))
