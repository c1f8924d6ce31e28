"""The gradients of a batch of any size, with the memory of a piece of it.

The embeddings of all pieces are computed without a graph, the loss over all of them gives the
gradient of each embedding, and each piece is computed again, with a graph and with the random
numbers it had, to pass its embeddings' gradients on to the weights.

Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup",
section 3.2.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.cpu_kernels import give_back_freed_memory
from speaker_encoder.training.distributed import num_processes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.config import TrainConfig

_logger = logging.getLogger(__name__)

Embed = Callable[[slice], torch.Tensor]


def split_batch(batch_size: int, mini_batch_size: int) -> list[slice]:
    """Gives the rows of each piece: as few pieces as can be, and as even."""
    num_pieces = -(-batch_size // mini_batch_size)
    bounds = [batch_size * number // num_pieces for number in range(num_pieces + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(bounds)]


def cached_loss(
    accelerator: Accelerator,
    model: nn.Module,
    pieces: Sequence[slice],
    embed: Embed,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    share: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gives the loss of a whole batch; its backward completes every parameter's gradient.

    All pieces but the last one have had their backward before this returns, without a word to
    other processes; the last one's graph hangs on the loss that is returned, so that its backward
    is where processes meet, as it is without pieces.

    Args:
        accelerator: with the precision, the gradient scaler and the processes.
        model: in training, as it was wrapped for the processes.
        pieces: rows of the batch, one after the other.
        embed: rows -> (n, D) the model's embeddings of them.
        loss_of: (B, D) embeddings of the whole batch -> scalar.
        share: what the loss that is returned is multiplied by before its backward: one part of
            the batches that gradients are accumulated over.

    Returns:
        The scalar loss, and (B, D) embeddings without a graph.
    """
    device = next(model.parameters()).device
    statistics = BatchStatistics(model)
    states, embedded = [], []
    with torch.no_grad():
        for piece in pieces:
            states.append(RandomState(device))
            embedded.append(embed(piece))
            statistics.put_back()
    _forget(device)
    embeddings = torch.cat(embedded).requires_grad_()
    loss = loss_of(embeddings)
    scale = float(accelerator.scaler.get_scale()) if accelerator.scaler is not None else 1.0
    (gradient,) = torch.autograd.grad(loss * scale, embeddings, retain_graph=True)
    gradient = gradient / scale
    for piece, state in zip(pieces, states, strict=True):
        is_last = piece == pieces[-1]
        state.restore()
        with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
            passed_on = (embed(piece) * gradient[piece]).sum()
            statistics.take(piece.stop - piece.start)
            if not is_last:
                accelerator.backward(passed_on * share)
                statistics.put_back()  # gradient checkpointing has computed the piece once more
                _forget(device)
    statistics.update()
    return _WithBackwardOf.apply(loss, passed_on), embeddings.detach()


def _forget(device: torch.device) -> None:
    """Leaves nothing of a piece in memory; on a GPU the next one finds its place by itself."""
    if device.type == "cpu":
        give_back_freed_memory()


class _WithBackwardOf(torch.autograd.Function):
    """Gives a scalar as it is; backward goes through it and through another one."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradients[0], gradients[0]


class RandomState:
    """Where torch's generators stand, which a forward pass draws from.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Puts them there again."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


class BatchStatistics:
    """Updates the running statistics of batch norm once for all pieces of a batch.

    Each piece is normalised by its own statistics. The running ones move by the momentum towards
    the mean of the pieces', weighted by their rows.

    Args:
        model: in training; batch norm that is in eval mode is left alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules: list[Any] = [
            module
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and module.training
            and module.track_running_stats
        ]
        self._before = [self._read(module) for module in self._modules]
        self._sums = [[torch.zeros_like(part) for part in parts] for parts in self._before]
        self._counts = [module.num_batches_tracked.clone() for module in self._modules]
        self._num_rows = 0

    @staticmethod
    def _read(module: Any) -> list[torch.Tensor]:
        return [module.running_mean.clone(), module.running_var.clone()]

    def put_back(self) -> None:
        """Makes the running statistics what they were."""
        for module, before, count in zip(self._modules, self._before, self._counts, strict=True):
            self._write(module, before, count)

    def take(self, num_rows: int) -> None:
        """Notes what a piece of `num_rows` rows moved them to, and makes them what they were."""
        for module, sums in zip(self._modules, self._sums, strict=True):
            for total, moved in zip(sums, self._read(module), strict=True):
                total.add_(moved, alpha=num_rows)
        self._num_rows += num_rows
        self.put_back()

    def update(self) -> None:
        """Moves them to the mean of what the pieces moved them to."""
        for module, sums, count in zip(self._modules, self._sums, self._counts, strict=True):
            self._write(module, [total / self._num_rows for total in sums], count + 1)

    @staticmethod
    def _write(module: Any, values: list[torch.Tensor], num_batches: torch.Tensor) -> None:
        # behind the back of autograd, whose graph holds them and has no use for their values
        module.running_mean.data.copy_(values[0])
        module.running_var.data.copy_(values[1])
        module.num_batches_tracked.data.copy_(num_batches)


@contextlib.contextmanager
def nothing_changed(model: nn.Module) -> Iterator[None]:
    """Leaves generators, running statistics and gradients as they were, whatever the block does."""
    state = RandomState(next(model.parameters()).device)
    statistics = BatchStatistics(model)
    gradients = [parameter.grad for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        statistics.put_back()
        state.restore()


def learns_statistics(model: SpeakerEncoder) -> bool:
    """Says if the encoder has batch norm whose weights are trained."""
    return any(
        isinstance(module, nn.modules.batchnorm._BatchNorm)
        and any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        for module in model.backbone.modules()
    )


def check_activations(config: TrainConfig, model: SpeakerEncoder) -> None:
    """Checks that activations can be computed again where they are not to be kept.

    Raises:
        UserError: the encoder has no layers that know how.
    """
    names = ("activation_checkpointing", "gradient_checkpointing")
    asked = [name for name in names if config.training_arguments.get(name)]
    if asked and not any(hasattr(part, "gradient_checkpointing") for part in model.modules()):
        raise UserError(
            f"training_arguments: {asked[0]} is for self-supervised encoders; {config.model_name} "
            "cannot compute activations again. Leave it out; mini_batch_size saves memory too."
        )


def check_pieces(config: TrainConfig, model: SpeakerEncoder) -> None:
    """Checks that each piece of a batch can be normalised by itself, where it has to be.

    Raises:
        UserError: a piece would be one crop, which has no statistics.
    """
    size = config.mini_batch_size
    if size is None or config.freeze_batch_norm or not learns_statistics(model):
        return
    batch_size = config.speakers_per_batch * config.utterances_per_speaker // num_processes()
    if isinstance(size, int) and any(
        piece.stop - piece.start < 2 for piece in split_batch(batch_size, size)
    ):
        raise UserError(
            f"mini_batch_size: with {size}, a piece of the {batch_size} crops would be one crop, "
            "and batch norm has no statistics of one. Choose a larger one, or set "
            "freeze_batch_norm to true."
        )
    _logger.info(
        "mini_batch_size: batch norm takes the statistics of each piece, so the gradients are not "
        "quite those of the whole batch; they are with freeze_batch_norm"
    )
