"""From audio files and waveforms to embeddings, in bounded batches sorted by length."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch.nn.functional import normalize

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.batching import too_short
from speaker_encoder.modeling.cpu_kernels import fast_cpu_inference
from speaker_encoder.modeling.precision import full_float32
from speaker_encoder.modeling.windows import LONGEST_SECONDS, mean_embedding, plan_segments

if TYPE_CHECKING:
    from speaker_encoder.modeling.encoder import SpeakerEncoder

Waveform: TypeAlias = "np.ndarray | torch.Tensor"
EncoderInput: TypeAlias = "str | Path | Waveform"

MAX_BATCH_SECONDS = 160.0
"""A batch holds no more padded audio than this, unless a single utterance is longer."""


class EncodesAudio:
    """What a speaker encoder has to embed audio with."""

    def refuse_untrained_head(self, remedy: str = "") -> None:
        """Checks that embeddings of this encoder mean something; call it before writing any.

        Args:
            remedy: what else can be done; the end of the text.

        Raises:
            UserError: the head has random weights.
        """
        config = cast("SpeakerEncoder", self).config
        if config.untrained_head:
            name = config.base_model_name or f"this {config.encoder_kind} encoder"
            raise UserError(
                f"The part of {name} that makes the embedding has random weights: its embeddings "
                "say nothing about speakers yet. Fine-tune it first, or take an encoder with a "
                f"trained head such as 'wavlm-base-plus-sv' or 'ecapa'.{remedy}"
            )

    def encode(
        self,
        inputs: EncoderInput | Sequence[EncoderInput],
        batch_size: int = 16,
        show_progress: bool | None = None,
        allow_untrained_head: bool = False,
    ) -> torch.Tensor:
        """Gives the embeddings of audio files or waveforms.

        Args:
            inputs: One or a list of paths and 1-D float waveforms in [-1, 1] at ``sampling_rate``.
            batch_size: Utterances of a batch; it does not change the embeddings.
            show_progress: Show a progress bar; None: when there is a terminal.
            allow_untrained_head: Also embed with a head of random weights.

        Returns:
            (N, D) float32 CPU tensor in the order of ``inputs``, rows L2-normalised.

        Raises:
            UserError: a file cannot be read, a waveform is too short, not 1-D or not finite, or
                the head is untrained.
        """
        if not allow_untrained_head:
            self.refuse_untrained_head(" allow_untrained_head=True gives them all the same.")
        model = cast("SpeakerEncoder", self)
        return encode_inputs(model, inputs, batch_size=batch_size, show_progress=show_progress)

    def similarity(self, a: Waveform, b: Waveform) -> torch.Tensor:
        """Gives the cosine of each pair of embeddings.

        Args:
            a: (N, D) embeddings, or one (D,); numpy or torch.
            b: (M, D) embeddings, or one (D,).

        Returns:
            (N, M) float32 cosines in [-1, 1].
        """
        return cosine_similarity(a, b)


def plan_batches(
    num_samples: Sequence[int], batch_size: int, max_batch_samples: int
) -> list[list[int]]:
    """Sorts utterances by length into batches with little padding.

    Args:
        num_samples: Samples of each utterance.
        batch_size: Most utterances of a batch.
        max_batch_samples: Most padded samples of a batch with more than one utterance.

    Returns:
        Indices into ``num_samples``, the longest utterances first; each appears once.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(num_samples)), key=lambda i: (-num_samples[i], i)):
        batch = batches[-1] if batches else []
        is_full = len(batch) >= batch_size
        if not batch or is_full or (len(batch) + 1) * num_samples[batch[0]] > max_batch_samples:
            batches.append([index])
        else:
            batch.append(index)
    return batches


def as_waveform(waveform: Waveform, which: str) -> np.ndarray:
    """Checks one waveform that a user gives.

    Args:
        waveform: (T,) float in [-1, 1].
        which: How an error names it.

    Returns:
        (T,) float32.

    Raises:
        UserError: it is empty, not 1-D, not floating point or not finite.
    """
    if isinstance(waveform, torch.Tensor):
        waveform = waveform.detach().cpu()
        waveform = waveform.float() if waveform.is_floating_point() else waveform
    array = np.asarray(waveform)
    if array.ndim != 1:
        raise UserError(
            f"{which} must be a mono waveform with shape (T,), found shape {array.shape}. Average "
            "its channels, and give several utterances as a list."
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"{which} must hold floating point samples in [-1, 1], found {array.dtype}. Divide "
            "integers by their largest value: 32768 for int16."
        )
    if array.size == 0:
        raise UserError(f"{which} is empty: it has no samples. Leave it out.")
    array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise UserError(f"{which} has non-finite samples (NaN or Inf). Leave it out, or repair it.")
    return array


def encode_inputs(
    model: SpeakerEncoder,
    inputs: EncoderInput | Sequence[EncoderInput],
    *,
    batch_size: int,
    show_progress: bool | None,
) -> torch.Tensor:
    """Does the work of ``SpeakerEncoder.encode``.

    Returns:
        (N, D) float32 CPU tensor in the order of ``inputs``, rows L2-normalised.

    Raises:
        UserError: as ``SpeakerEncoder.encode``.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, found {batch_size}.")
    items = _as_items(inputs)
    embeddings = torch.empty(len(items), model.embedding_dim)
    if not items:
        return embeddings
    lengths = [_num_samples(item, index, model) for index, item in enumerate(items)]
    batches = plan_batches(lengths, batch_size, int(MAX_BATCH_SECONDS * model.sampling_rate))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), _progress_bar(len(items), show_progress) as progress:
            for batch in batches:
                if lengths[batch[0]] > LONGEST_SECONDS * model.sampling_rate:
                    for index in batch:
                        embeddings[index] = _encode_long(model, items[index], lengths[index], index)
                else:
                    waveforms = [_read(items[index], index, model) for index in batch]
                    embeddings[batch] = encode_batch(model, waveforms)
                progress.update(len(batch))
    finally:
        model.train(was_training)
    return embeddings


def cosine_similarity(a: Waveform, b: Waveform) -> torch.Tensor:
    """Gives the (N, M) cosines of (N, D) and (M, D) embeddings; one (D,) counts as (1, D)."""
    rows, columns = (torch.atleast_2d(torch.as_tensor(x)).float() for x in (a, b))
    return normalize(rows, dim=-1) @ normalize(columns, dim=-1).T


def _encode_long(
    model: SpeakerEncoder, item: EncoderInput, num_samples: int, index: int
) -> torch.Tensor:
    """Gives the (D,) mean over the windows of an utterance, reading one window at a time."""
    rows = []
    for start, stop in plan_segments(num_samples, model.sampling_rate):
        if isinstance(item, (str, Path)):
            from speaker_encoder.audio import read_audio

            window = read_audio(item, model.sampling_rate, start=start, num_samples=stop - start)
        else:
            window = as_waveform(item[start:stop], f"Waveform {index}")
        rows.append(encode_batch(model, [window]))
    return mean_embedding(torch.cat(rows))


def frozen_encoder(model: SpeakerEncoder) -> SpeakerEncoder:
    """Gives what embeds the same for as long as no weight changes, faster where it can be.

    Args:
        model: in eval mode; it is left as it is, and shares its weights.
    """
    twin = copy.copy(model)
    twin._modules = {**model._modules, "backbone": model.backbone.frozen()}
    return twin


def encode_batch(model: SpeakerEncoder, waveforms: Sequence[np.ndarray]) -> torch.Tensor:
    """Embeds a few waveforms at once.

    Args:
        model: In eval mode; the caller switches gradients off.
        waveforms: (T_i,) float32 each, checked already.

    Returns:
        (B, D) float32 CPU embeddings, rows L2-normalised.
    """
    return normalize(forward_batch(model, waveforms), dim=-1).cpu()


def forward_batch(model: SpeakerEncoder, waveforms: Sequence[np.ndarray]) -> torch.Tensor:
    """The same as the model gives it.

    Returns:
        (B, D) float32 embeddings on the model's device, not normalised.
    """
    longest = max(len(waveform) for waveform in waveforms)
    input_values = torch.zeros(len(waveforms), longest)
    attention_mask = torch.zeros(len(waveforms), longest, dtype=torch.bool)
    for row, waveform in enumerate(waveforms):
        input_values[row, : len(waveform)] = torch.from_numpy(waveform)
        attention_mask[row, : len(waveform)] = True
    with fast_cpu_inference(model.device), full_float32(model.device):
        output: Any = model(input_values.to(model.device), attention_mask.to(model.device))
    return output.embeddings.float()


def _as_items(inputs: EncoderInput | Sequence[EncoderInput]) -> list[EncoderInput]:
    """Gives a list, also of one path or waveform."""
    if isinstance(inputs, (str, Path)):
        return [inputs]
    if isinstance(inputs, (np.ndarray, torch.Tensor)):
        return [as_waveform(inputs, "The waveform")]
    items = list(inputs)
    for index, item in enumerate(items):
        if not isinstance(item, (str, Path, np.ndarray, torch.Tensor)):
            raise UserError(
                f"Input {index} must be a path or a 1-D waveform (numpy or torch), found "
                f"{type(item).__name__}."
            )
    return items


def _num_samples(item: EncoderInput, index: int, model: SpeakerEncoder) -> int:
    """Gives the samples of an input at the model's rate; of a file from its header alone."""
    if not isinstance(item, (str, Path)):
        num_samples = len(as_waveform(item, f"Waveform {index}"))
        if num_samples < model.min_num_samples:
            raise too_short(
                num_samples, model.min_num_samples, model.sampling_rate, f"Waveform {index}"
            )
        return num_samples
    from speaker_encoder.audio import read_info, resampled_num_samples

    info = read_info(item)
    return resampled_num_samples(info.num_samples, info.sampling_rate, model.sampling_rate)


def _read(item: EncoderInput, index: int, model: SpeakerEncoder) -> np.ndarray:
    """Gives the (T,) float32 waveform of an input, long enough to be embedded."""
    if not isinstance(item, (str, Path)):
        return as_waveform(item, f"Waveform {index}")
    from speaker_encoder.audio import read_audio

    waveform = read_audio(item, model.sampling_rate)
    if len(waveform) < model.min_num_samples:
        raise too_short(len(waveform), model.min_num_samples, model.sampling_rate, str(item))
    return waveform


def _progress_bar(total: int, show_progress: bool | None) -> Any:
    from tqdm import tqdm

    is_shown = sys.stderr.isatty() if show_progress is None else show_progress
    return tqdm(total=total, desc="embedding", unit="utterance", disable=not is_shown)
