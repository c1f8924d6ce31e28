"""Lengths, masks and the border checks of a padded batch of waveforms."""

from __future__ import annotations

import torch
from torch import nn

from speaker_encoder.errors import UserError


def lengths_from_mask(
    attention_mask: torch.Tensor | None, input_values: torch.Tensor
) -> torch.Tensor | None:
    """Gives the number of samples of each utterance.

    Args:
        attention_mask: (B, T), 1 for samples, 0 for the padding behind them; or None.
        input_values: (B, T) waveforms.

    Returns:
        (B,) int64 lengths; None when all rows are T samples long.

    Raises:
        UserError: the mask has another shape, or padding that is not behind the utterance.
    """
    if attention_mask is None:
        return None
    if attention_mask.shape != input_values.shape:
        raise UserError(
            f"attention_mask must have the shape of input_values {tuple(input_values.shape)}, "
            f"found {tuple(attention_mask.shape)}."
        )
    is_sample = attention_mask.bool()
    if bool(is_sample.all()):
        return None
    if bool((is_sample[:, 1:] & ~is_sample[:, :-1]).any()):
        raise UserError(
            "attention_mask must be 1 from the start of an utterance to its end: pad behind the "
            "utterances (padding_side='right')."
        )
    return is_sample.sum(dim=1)


def too_short(num_samples: int, min_num_samples: int, sampling_rate: int, which: str) -> UserError:
    """Gives the error for an utterance that the model cannot embed."""
    return UserError(
        f"{which} has {num_samples} samples ({num_samples / sampling_rate:.3f} s); the shortest "
        f"that this encoder can embed is {min_num_samples} samples "
        f"({min_num_samples / sampling_rate:.3f} s). Leave it out, or repeat it."
    )


def refuse_short_utterances(
    lengths: torch.Tensor | None,
    input_values: torch.Tensor,
    min_num_samples: int,
    sampling_rate: int,
) -> None:
    """Checks that each utterance of a batch is long enough.

    Raises:
        UserError: an utterance is shorter than ``min_num_samples``.
    """
    if lengths is None:
        if input_values.shape[1] < min_num_samples:
            raise too_short(input_values.shape[1], min_num_samples, sampling_rate, "An utterance")
    elif int(lengths.min()) < min_num_samples:
        row = int(lengths.argmin())
        raise too_short(int(lengths[row]), min_num_samples, sampling_rate, f"Utterance {row}")


def normalize_utterances(input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Brings each utterance to zero mean and unit variance over its own samples.

    Args:
        input_values: (B, T) waveforms, zero behind each end.
        lengths: (B,) samples of each utterance, or None for T.

    Returns:
        (B, T) ``(x - mean) / sqrt(variance + 1e-7)``, zero behind each end.

    Source: ``zero_mean_unit_var_norm`` of transformers' Wav2Vec2FeatureExtractor.
    """
    if lengths is None:
        variance, mean = torch.var_mean(input_values, dim=1, keepdim=True, correction=0)
        return (input_values - mean) / torch.sqrt(variance + 1e-7)
    is_sample = torch.arange(input_values.shape[1], device=lengths.device) < lengths[:, None]
    count = lengths[:, None].to(input_values.dtype)
    mean = input_values.sum(dim=1, keepdim=True) / count
    centred = (input_values - mean).masked_fill(~is_sample, 0.0)
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / torch.sqrt(variance + 1e-7)


def set_batch_norm_mode(network: nn.Module, mode: bool) -> None:
    """Sets training mode of batch norm alone; where its weights are frozen it stays in eval mode.

    Args:
        network: What holds the batch norms.
        mode: False: eval mode.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            weights = list(module.parameters(recurse=False))
            is_frozen = bool(weights) and not any(one.requires_grad for one in weights)
            module.train(mode and not is_frozen)
