"""The model as it is validated and published, where it is not simply the one in training."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from speaker_encoder.training.lora import is_adapted, without_adapters
from speaker_encoder.training.sharding import copy_whole

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

WEIGHTS_NAME = "training_weights.safetensors"
"""In a checkpoint: the weights that training goes on with, where `model.safetensors` has others."""


class PublishedModel:
    """Gives the moving average of an encoder's weights, and a plain encoder for an adapted one.

    Of an encoder whose weights are divided over the processes it gives a whole one, which each
    process has on its CPU.

    Args:
        encoder: the model in training, on its device, with its loss.
        ema_decay: what of the average remains at each step; None: the weights themselves.
        is_divided: whether the weights will be divided over the processes.
    """

    def __init__(
        self, encoder: SpeakerEncoder, ema_decay: float | None, *, is_divided: bool = False
    ) -> None:
        self._encoder = encoder
        self._whole = cast(nn.Module, copy.deepcopy(encoder)).cpu() if is_divided else None
        self._is_adapted = is_adapted(encoder)
        self._average: AveragedModel | None = None
        if ema_decay is not None:
            # buffers, the statistics of batch norm, are copied at each update
            self._average = AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))

    @property
    def is_apart(self) -> bool:
        """Is it another model than the one in training."""
        return self._is_adapted or self._average is not None

    def update(self) -> None:
        """Takes the weights after a step of the optimizer into the average."""
        if self._average is not None:
            self._average.update_parameters(self._encoder)

    def model(self) -> SpeakerEncoder:
        """Gives it, with its loss; what is done to it may or may not reach the next one given.

        Of divided weights it is as it was `gather`ed the last time.
        """
        model = self._encoder
        if self._whole is not None:
            model = cast("SpeakerEncoder", self._whole)
            model.config = self._encoder.config
        if self._average is not None:
            model = cast("SpeakerEncoder", self._average.module)
            model.config = self._encoder.config
        return without_adapters(model) if self._is_adapted else model

    def gather(self) -> None:
        """Brings divided weights together; a collective call, which does nothing with others."""
        if self._whole is not None:
            copy_whole(self._encoder, self._whole)

    @contextlib.contextmanager
    def gathered(self, device: torch.device) -> Iterator[SpeakerEncoder]:
        """Gives the model as it is now, on the device of the training; a collective call."""
        self.gather()
        try:
            if self._whole is not None:
                self._whole.to(device)
            yield self.model()
        finally:
            if self._whole is not None:
                self._whole.cpu()

    def save_weights(self, folder: Path) -> None:
        """Writes the weights in training, and their average, into a checkpoint."""
        from safetensors.torch import save_file

        parts = {"encoder": self._encoder.state_dict()}
        if self._average is not None:
            parts["average"] = self._average.state_dict()
        tensors = {
            f"{part}.{name}": tensor.detach().cpu().contiguous().clone()
            for part, state in parts.items()
            for name, tensor in state.items()
        }
        save_file(tensors, folder / WEIGHTS_NAME)

    def load_weights(self, folder: Path) -> None:
        """Reads them back.

        Raises:
            SafetensorError: the file is damaged.
            OSError: it is not there.
        """
        from safetensors.torch import load_file

        tensors = load_file(folder / WEIGHTS_NAME)

        def part(prefix: str) -> dict:
            found = {k: v for k, v in tensors.items() if k.startswith(prefix)}
            return {name.removeprefix(prefix): tensor for name, tensor in found.items()}

        self._encoder.load_state_dict(part("encoder."))
        if self._average is not None:
            self._average.load_state_dict(part("average."))
