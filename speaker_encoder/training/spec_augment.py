"""SpecAugment: masks stretches of time and of mel bands in the features of training examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from speaker_encoder.errors import UserError

_STREAM = 21  # sets these random numbers apart from those of crops and of other augmentation


@dataclass(frozen=True)
class MaskSizes:
    """How many masks an example gets, and how wide they are at most.

    Attributes:
        time_masks: number of masks over time.
        time_frames: longest mask, in frames of the encoder's features, mostly of 10 ms.
        mel_masks: number of masks over mel bands.
        mel_bands: widest mask.
    """

    time_masks: int
    time_frames: int
    mel_masks: int
    mel_bands: int


class SpecAugment:
    """Masks an encoder's mel features in training, with zero, which is their mean.

    The width of each mask is uniform from 0 to the widest, and so is its place where it fits. The
    masks of an example depend on (seed, its position) and on nothing else.

    Args:
        sizes: of the masks.
        seed: of the run.

    Attributes:
        positions: (B,) int64, of the examples of the batch that is trained on; None: nothing is
            masked.

    Source: Park et al. 2019, "SpecAugment", section 2, without time warping.
    """

    def __init__(self, sizes: MaskSizes, seed: int) -> None:
        self._sizes = sizes
        self._seed = seed
        self.positions: torch.Tensor | None = None

    def attach(self, backbone: nn.Module, name: str) -> None:
        """Masks the output of each module that says where its mel bands are (`mel_axis`).

        Args:
            backbone: the encoder's network.
            name: of the encoder, for the error.

        Raises:
            UserError: it has no such module.
        """
        features = [module for module in backbone.modules() if hasattr(module, "mel_axis")]
        if not features:
            raise UserError(
                f"spec_augment_time_masks, spec_augment_mel_masks: the {name} encoder has no mel "
                "spectrogram of zero mean that could be masked. Set both to 0."
            )
        for module in features:
            module.register_forward_hook(self._mask)

    def _mask(self, module: nn.Module, inputs: Any, features: torch.Tensor) -> torch.Tensor | None:
        """Gives the features of a training batch masked; (B, T', F) or (B, F, T')."""
        if not module.training or self.positions is None:
            return None
        assert len(self.positions) == len(features)
        mel_axis = int(module.mel_axis)  # type: ignore[arg-type]
        hidden = torch.zeros(features.shape, dtype=torch.bool)
        for example, position in zip(hidden, self.positions.tolist(), strict=True):
            random = np.random.default_rng([self._seed, _STREAM, position])
            mel = example.transpose(0, mel_axis - 1)  # (F, T')
            for number, widest, rows in (
                (self._sizes.mel_masks, self._sizes.mel_bands, mel),
                (self._sizes.time_masks, self._sizes.time_frames, mel.T),
            ):
                for _ in range(number):
                    width = int(random.integers(min(widest, len(rows)) + 1))
                    first = int(random.integers(len(rows) - width + 1))
                    rows[first : first + width] = True
        return features.masked_fill(hidden.to(features.device), 0.0)
