"""SpeechBrain's ECAPA-TDNN for many utterances on a CPU, while its weights stay as they are.

The frame-level blocks hold time before channels, so that bias and ReLU are part of oneDNN's
products, whose weights are brought into its own order once; batch norm is one multiplication and
one addition. Only the order of summation differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from speaker_encoder.modeling.cpu_kernels import PackedLinear, has_one_dnn, product


def can_be_frozen(network: Any) -> bool:
    """Says if the weights are float32 on a CPU, and those of plain layers: without adapters."""
    from speechbrain.nnet.CNN import Conv1d
    from speechbrain.nnet.normalization import BatchNorm1d

    weights = [*network.parameters(), *network.buffers()]
    layers = [
        layer
        for module in network.modules()
        for layer in (getattr(module, "conv", None), getattr(module, "norm", None))
        if layer is not None and not isinstance(layer, (Conv1d, BatchNorm1d))
    ]
    return (
        has_one_dnn()
        and all(one.device.type == "cpu" for one in weights)
        and all(one.dtype in (torch.float32, torch.int64) for one in weights)
        and all(type(layer) in (nn.Conv1d, nn.BatchNorm1d) for layer in layers)
    )


class FrozenEcapa(nn.Module):
    """What embeds as an ``ECAPA_TDNN`` does, single utterances without gradients faster.

    Args:
        network: upstream's module with our pooling, in eval mode, in float32 on a CPU, its
            ``groups`` and its last kernel size all 1. Its weights must not change any more.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        first, *others = network.blocks
        self._first = _Tdnn(first)
        self._others = [_SeRes2Net(block) for block in others]
        self._mfa_scale, self._mfa_shift = _affine(network.mfa.norm.norm)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Gives (B, 1, D) embeddings of (B, T, C) features; ``lengths`` (B,) are fractions of T."""
        is_single = lengths is None and len(features) == 1
        if not is_single or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            embeddings: torch.Tensor = self.network(features, lengths)
            return embeddings
        frames = self._first(features[0])
        outputs = []
        for block in self._others:
            frames = block(frames)
            outputs.append(frames)
        return self._pool(torch.cat(outputs, dim=1))

    def _pool(self, frames: torch.Tensor) -> torch.Tensor:
        """Aggregates and pools (T, C) frames to (1, 1, D); the pooling reads channel by channel."""
        network = self.network
        convolution = network.mfa.conv.conv
        hidden = product(convolution.weight[..., 0], frames)
        hidden = hidden.add_(convolution.bias[:, None]).relu_()
        torch.addcmul(self._mfa_shift[:, None], hidden, self._mfa_scale[:, None], out=hidden)
        return network.fc(network.asp_bn(network.asp(hidden[None]))).transpose(1, 2)


class _Tdnn:
    """Upstream's ``TDNNBlock`` on (T, C) frames."""

    def __init__(self, block: Any) -> None:
        convolution = block.conv
        self._kernel_size: int = convolution.kernel_size
        self._dilation: int = convolution.dilation
        self._linear = _packed(convolution)
        self._scale, self._shift = _affine(block.norm.norm)

    def __call__(self, frames: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Gives (T, C') frames, written to `out` if there is one."""
        hidden = self._linear(self._neighbours(frames), activation="relu")
        return torch.addcmul(self._shift, hidden, self._scale, out=hidden if out is None else out)

    def _neighbours(self, frames: torch.Tensor) -> torch.Tensor:
        """Gives (T, K C): what the kernel covers at each frame; the ends are mirrored."""
        if self._kernel_size == 1:
            return frames
        last = len(frames) - 1
        offsets = (torch.arange(self._kernel_size) - self._kernel_size // 2) * self._dilation
        covered = (torch.arange(len(frames))[:, None] + offsets).abs()
        covered = last - (last - covered).abs()
        return frames.index_select(0, covered.flatten()).view(len(frames), -1)


class _SeRes2Net:
    """Upstream's ``SERes2NetBlock`` on (T, C) frames."""

    def __init__(self, block: Any) -> None:
        self._shortcut = None if block.shortcut is None else _packed(block.shortcut)
        self._before, self._after = _Tdnn(block.tdnn1), _Tdnn(block.tdnn2)
        self._scale: int = block.res2net_block.scale
        self._parts = [_Tdnn(part) for part in block.res2net_block.blocks]
        self._squeeze: Any = block.se_block.conv1.conv
        self._excite: Any = block.se_block.conv2.conv

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Gives (T, C') frames."""
        residual = frames if self._shortcut is None else self._shortcut(frames)
        hidden = self._after(self._res2net(self._before(frames)))
        mean = hidden.mean(0, keepdim=True)
        squeezed = functional.linear(mean, self._squeeze.weight[..., 0], self._squeeze.bias)
        excited = functional.linear(
            squeezed.relu_(), self._excite.weight[..., 0], self._excite.bias
        )
        return torch.addcmul(residual, hidden, excited.sigmoid_(), out=hidden)

    def _res2net(self, frames: torch.Tensor) -> torch.Tensor:
        hidden = torch.empty_like(frames)
        inputs, outputs = frames.chunk(self._scale, 1), hidden.chunk(self._scale, 1)
        outputs[0].copy_(inputs[0])
        for number, part in enumerate(self._parts):
            heard = inputs[number + 1]
            part(heard + outputs[number] if number else heard, out=outputs[number + 1])
        return hidden


def _packed(convolution: Any) -> PackedLinear:
    """The product of a convolution: (T, K C) -> (T, C')."""
    weight = convolution.conv.weight.detach()
    return PackedLinear(weight.transpose(1, 2).flatten(1), convolution.conv.bias.detach())


def _affine(norm: nn.BatchNorm1d) -> tuple[torch.Tensor, torch.Tensor]:
    """What batch norm in eval mode multiplies by and adds."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias.detach() - norm.running_mean * scale
