"""Losses that learn the training speakers as classes: what they share."""

from typing import Any

import torch
from torch import Tensor, nn

from speaker_encoder.errors import UserError
from speaker_encoder.losses.batch import full_precision, require_positive


class SpeakerClassifier(nn.Module):
    """A loss whose weights are vectors of the training speakers.

    The weights live in a training's checkpoints and never in the published encoder. The loss says
    nothing about other speakers, so there is no validation loss with one of these.

    Args:
        loss_name: for messages.
        num_speakers: number of training speakers; labels are 0 .. num_speakers - 1.

    Raises:
        UserError: fewer than two speakers.
    """

    only_for_training = True

    def __init__(self, loss_name: str, num_speakers: int) -> None:
        super().__init__()
        if num_speakers < 2:
            raise UserError(
                f"{loss_name} needs at least 2 training speakers, found {num_speakers}."
            )
        self.loss_name = loss_name
        self.num_speakers = num_speakers

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Refuses weights of other speakers, before torch does with a traceback."""
        for name, parameter in self.named_parameters():
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.shape != parameter.shape:
                raise UserError(
                    f"{self.loss_name} has weights for {self.num_speakers} training speakers, "
                    f"{tuple(parameter.shape)}; found {tuple(stored.shape)} in the checkpoint. "
                    "Train on the same speakers as before, or start anew with another run_id."
                )
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def prepare(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gives embeddings in full precision and labels on their device, both checked.

        Raises:
            UserError: a label that is no training speaker.
            ValueError: shapes that do not belong together.
        """
        embeddings = full_precision(embeddings, labels, self.loss_name)
        on_cpu = labels.detach().cpu()
        wrong = on_cpu[(on_cpu < 0) | (on_cpu >= self.num_speakers)]
        if len(wrong):
            raise UserError(
                f"{self.loss_name} was built for {self.num_speakers} training speakers, whose "
                f"labels are 0 to {self.num_speakers - 1}; found the label {int(wrong[0])}. Other "
                "speakers have no class in it: judge them by verification trials."
            )
        return embeddings, labels.to(embeddings.device)


class MarginSoftmax(SpeakerClassifier):
    """Softmax over scaled cosines to the training speakers, the own one made worse by a margin.

    The margin may rise linearly from `initial_margin` at step `margin_start_step` to `margin` at
    `margin_end_step`. Steps are those of the optimizer, told by `set_step`, which the trainer
    calls: batches of one accumulation share a step, and a resumed run goes on with its own.

    Args:
        loss_name: for messages.
        embedding_dim: D.
        num_speakers: number of training speakers.
        margin: the margin, at least 0.
        scale: what the cosines are multiplied by, positive.
        initial_margin: the margin before the schedule starts.
        margin_start_step: step from which the margin rises.
        margin_end_step: step from which it is whole; 0: from the first.
        sub_centres: vectors of each speaker; the nearest counts.

    Raises:
        UserError: a value that is impossible.
    """

    def __init__(
        self,
        loss_name: str,
        embedding_dim: int,
        num_speakers: int,
        margin: float,
        scale: float,
        initial_margin: float,
        margin_start_step: int,
        margin_end_step: int,
        sub_centres: int = 1,
    ) -> None:
        super().__init__(loss_name, num_speakers)
        if not (margin >= 0 and initial_margin >= 0):
            raise UserError(
                f"{loss_name} needs margins of at least 0, found margin {margin!r} and "
                f"initial_margin {initial_margin!r}."
            )
        if not 0 <= margin_start_step <= margin_end_step:
            raise UserError(
                f"{loss_name}'s margin rises from margin_start_step to margin_end_step, found "
                f"{margin_start_step!r} and {margin_end_step!r}."
            )
        self.margin = float(margin)
        self.scale = require_positive(loss_name, "scale", scale)
        self.initial_margin = float(initial_margin)
        self.margin_start_step = margin_start_step
        self.margin_end_step = margin_end_step
        self.step = 0
        self.weight = nn.Parameter(torch.empty(num_speakers, sub_centres, embedding_dim))
        nn.init.normal_(self.weight)  # only the direction counts: uniform on the sphere

    def set_step(self, step: int) -> None:
        """Tells the number of optimizer steps done, for the schedule of the margin."""
        self.step = step

    @property
    def current_margin(self) -> float:
        """The margin of this step."""
        start, end = self.margin_start_step, self.margin_end_step
        if self.step >= end:
            return self.margin
        risen = max(0, self.step - start) / (end - start)
        return self.initial_margin + risen * (self.margin - self.initial_margin)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """`max_k cos(e[i], W[j,k])`: (B, D) -> (B, num_speakers)."""
        weight = nn.functional.normalize(self.weight.to(embeddings.dtype), dim=-1)
        embeddings = nn.functional.normalize(embeddings, dim=-1)
        cosines = embeddings @ weight.flatten(0, 1).T  # (B, num_speakers * sub_centres)
        return cosines.unflatten(1, weight.shape[:2]).amax(dim=-1)

    def extra_repr(self) -> str:
        """The sizes, for the printed module."""
        num_speakers, sub_centres, _ = self.weight.shape
        return (
            f"num_speakers={num_speakers}, sub_centres={sub_centres}, margin={self.margin}, "
            f"scale={self.scale}"
        )
