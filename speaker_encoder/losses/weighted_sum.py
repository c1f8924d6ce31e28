"""The sum of several losses."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn


class WeightedSum(nn.Module):
    """`sum_n weight[n] * loss[n](embeddings, labels)`.

    Args:
        losses: modules (embeddings (B, D), labels (B,)) -> scalar.
        weights: one of each.
    """

    def __init__(self, losses: Iterable[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.weights = tuple(float(weight) for weight in weights)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The sum over a batch.

        Args:
            embeddings: (B, D).
            labels: (B,), as all the losses take them.

        Returns:
            Scalar.
        """
        values = [loss(embeddings, labels) for loss in self.losses]
        weighted = [weight * value for weight, value in zip(self.weights, values, strict=True)]
        return sum(weighted[1:], start=weighted[0])

    def extra_repr(self) -> str:
        """The weights, for the printed module."""
        return f"weights={self.weights}"
