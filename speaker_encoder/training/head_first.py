"""The first steps of a run, in which only the head learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.config import TrainConfig


class HeadFirst:
    """Holds everything but the head, and the loss's own weights, for a run's first steps.

    Its gradients are computed, as for any other step, and dropped: nothing is clipped by them,
    and the optimizer leaves it, its weight decay included, as it is. Batch norm whose weights are
    held keeps its statistics, as where they are frozen.

    Args:
        model: with its adapters and what is frozen in it.
        num_steps: of the optimizer.

    Raises:
        UserError: nothing is left that learns.
    """

    def __init__(self, model: SpeakerEncoder, num_steps: int) -> None:
        self._num_steps = num_steps
        head = tuple(f"backbone.{part}" for part in model.backbone.head_parts)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._held = [p for name, p in trained.items() if not name.startswith((*head, "loss_fn."))]
        held = {id(parameter) for parameter in self._held}
        if len(held) == len(trained):
            raise UserError(
                "head_first_steps: nothing of the head is trained with the other keys of this "
                "config (freeze, lora), and the loss has no weights. Set head_first_steps to 0, "
                "or let a part of the head learn."
            )
        self._still: list[nn.Module] = []
        for module in model.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                weights = [p for p in module.parameters(recurse=False) if p.requires_grad]
                if weights and all(id(p) in held for p in weights):
                    self._still.append(module)

    def hold_statistics(self, step: int) -> None:
        """Puts the held batch norm into eval mode; `step`: how many are done."""
        if step < self._num_steps:
            for module in self._still:
                module.eval()

    def drop_gradients(self, step: int) -> None:
        """Takes the gradients away that are not to be followed; `step`: how many are done."""
        if step < self._num_steps:
            for parameter in self._held:
                parameter.grad = None


def build_head_first(config: TrainConfig, model: SpeakerEncoder) -> HeadFirst | None:
    """Gives what the config asks for; None: everything learns from the first step on.

    Raises:
        UserError: nothing would learn.
    """
    return HeadFirst(model, config.head_first_steps) if config.head_first_steps else None
