"""SpeechBrain's pooling with less work for the same result, and its lazy modules made harmless."""

from __future__ import annotations

import sys
from typing import Any

import torch
from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling, SEBlock
from speechbrain.utils.importutils import DeprecatedModuleRedirect
from torch import nn
from torch.nn import functional

_CHANNELS_AT_ONCE = 256
"""On a CPU a few channels stay in its cache from the first step of the pooling to the last."""


def make_redirects_inert() -> None:
    """Lets code that asks every loaded module for its file pass by SpeechBrain's old names.

    SpeechBrain leaves modules in ``sys.modules`` that import optional packages as soon as any
    attribute is read; a debugger or a test tool that reads ``__file__`` of all modules then fails.
    """
    for module in list(sys.modules.values()):
        if isinstance(module, DeprecatedModuleRedirect) and "__file__" not in vars(module):
            vars(module)["__file__"] = None


make_redirects_inert()


def squeeze_in_own_dtype(network: nn.Module) -> None:
    """Lets weights of half precision meet SpeechBrain's means, which its masks make float32."""
    for module in network.modules():
        if isinstance(module, SEBlock):
            module.conv1.register_forward_pre_hook(_to_own_dtype)


def _to_own_dtype(convolution: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    dtype = convolution.conv.weight.dtype
    return inputs if inputs[0].dtype == dtype else (inputs[0].to(dtype),)


def frame_mask(lengths: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Gives (B, T) floats, 1 for the frames of an utterance, 0 for those behind its end.

    Args:
        lengths: (B,) true lengths as fractions of T.
        num_frames: T.

    Source: ``speechbrain.dataio.dataio.length_to_mask``, which fixes the batch size when traced.
    """
    frames = torch.arange(num_frames, device=lengths.device, dtype=lengths.dtype)
    return (frames < (lengths * num_frames)[:, None]).to(lengths.dtype)


class SharedContextPooling(nn.Module):
    """SpeechBrain's ``AttentiveStatisticsPooling``, its context multiplied once per utterance.

    With ``global_context`` the attention sees each frame beside the mean and the deviation of the
    whole utterance. Upstream repeats these two for every frame and multiplies them every time;
    here their part of the product, which is the same for all frames, is computed once and added:
    a third of the products, and no (B, 3 C, T) tensor. Parameters, names and results are upstream's
    up to the order of summation.

    Args:
        pooling: upstream's module; its parts are taken over.
    """

    def __init__(self, pooling: AttentiveStatisticsPooling) -> None:
        super().__init__()
        self.eps: float = pooling.eps
        self.global_context: bool = pooling.global_context
        self.tdnn: Any = pooling.tdnn
        self.tanh = pooling.tanh
        self.conv: Any = pooling.conv

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Pools (B, C, T) frames to (B, 2 C, 1); ``lengths`` (B,) are fractions of T."""
        mask = None
        if lengths is not None:
            num_frames = x.shape[2]
            mask = frame_mask(lengths, num_frames)[:, None]
        tdnn = self.tdnn
        hidden = self._project_with_context(x, mask) if self.global_context else tdnn.conv(x)
        hidden = tdnn.dropout(tdnn.norm(tdnn.activation(hidden)))
        hidden = self.tanh(hidden)
        convolution = self.conv.conv
        block = _CHANNELS_AT_ONCE if x.device.type == "cpu" else x.shape[1]
        blocks = zip(
            x.split(block, 1), convolution.weight.split(block), convolution.bias.split(block),
            strict=True,
        )  # fmt: skip
        pooled = []
        for frames, weight, bias in blocks:
            scores = functional.conv1d(hidden, weight, bias)
            if mask is not None:
                scores = scores.masked_fill(mask == 0, float("-inf"))
            pooled.append(self._statistics(frames, functional.softmax(scores, dim=2)))
        statistics = [torch.cat(part, dim=1) for part in zip(*pooled, strict=True)]
        return torch.cat(statistics, dim=1).to(convolution.weight.dtype)

    def _project_with_context(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if mask is None:
            weights = torch.full((1, 1, 1), 1 / x.shape[2], device=x.device)
        else:
            weights = mask / mask.sum(dim=2, keepdim=True).float()
        block = _CHANNELS_AT_ONCE if x.device.type == "cpu" else x.shape[1]
        blocks = [self._statistics(frames, weights) for frames in x.split(block, 1)]
        context = torch.cat([torch.cat(part, dim=1) for part in zip(*blocks, strict=True)], dim=1)
        convolution = self.tdnn.conv.conv
        of_frames, of_context = convolution.weight.split((x.shape[1], context.shape[1]), dim=1)
        shared = functional.conv1d(context.to(of_context.dtype), of_context, convolution.bias)
        return functional.conv1d(x, of_frames) + shared

    def _statistics(
        self, x: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gives the weighted (B, C, 1) mean and standard deviation over time."""
        mean = (weights * x).sum(2, keepdim=True)
        variance = (weights * (x - mean).pow(2)).sum(2, keepdim=True)
        return mean, variance.clamp(self.eps).sqrt()
