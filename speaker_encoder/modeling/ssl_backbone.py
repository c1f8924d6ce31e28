"""What all self-supervised speech encoders share: layers, a choice of them, and a head.

Each family is one of transformers' models under a forward pass that is exact in a padded batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from speaker_encoder.modeling.backbone import PretrainedParts
from speaker_encoder.modeling.ssl_config import complete_ssl_config
from speaker_encoder.modeling.ssl_headed import HeadedBackbone
from speaker_encoder.modeling.ssl_parts import draw_spans, frame_mask, keep_in_graph
from speaker_encoder.modeling.ssl_weights import (
    is_upstream_folder,
    preprocessor_settings,
    read_upstream_folder,
)


class SelfSupervisedBackbone(HeadedBackbone):
    """First frames -> transformer layers -> one of them, or their weighted sum -> head."""

    def _first_frames(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gives (B, T, C), what goes into the first layer, and the (B,) true lengths in frames."""
        raise NotImplementedError

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, D) raw embeddings."""
        return self._embed(*self._frames(input_values, lengths))

    def _frames(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Gives what the head takes, (B, T, C) each, and the true lengths in frames."""
        hidden_states, num_frames = self._first_frames(input_values, lengths)
        is_frame = None if num_frames is None else frame_mask(num_frames, hidden_states.shape[1])
        return self._mix(self._layer_outputs(hidden_states, is_frame)), num_frames

    def _last_norm(self) -> nn.Module | None:
        """Gives the norm behind the last layer, which no sum of layers and no other layer sees."""
        return None

    def _mix(self, outputs: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Gives one layer's (B, T, C) frames, or each weighted sum of all layers' frames."""
        norm = self._last_norm()
        if self.layer_weights is None:
            (last,) = deque(outputs, maxlen=1)
            if norm is not None and self.encoder_config["layers"] == "last":
                return [norm(last)]
            return [keep_in_graph(last, norm.parameters() if norm is not None else ())]
        weights = self.layer_weights.softmax(dim=-1).view(self._num_mixes, -1)
        mixed: list[Any] = [0] * self._num_mixes
        for of_layer, output in zip(weights.unbind(dim=1), outputs, strict=True):
            mixed = [sum_ + weight * output for sum_, weight in zip(mixed, of_layer, strict=True)]
        # As upstream, which sums what the layers give before the last norm.
        return [
            keep_in_graph(sum_, norm.parameters() if norm is not None else ()) for sum_ in mixed
        ]

    def _layer_outputs(
        self, hidden_states: torch.Tensor, is_frame: torch.Tensor | None
    ) -> Iterable[torch.Tensor]:
        """Yields the first layer's input, then what each layer gives; drops layers in training."""
        layers = self._encoder.layers
        is_checkpointed = self.training and any(one.gradient_checkpointing for one in layers)
        if is_checkpointed and not hidden_states.requires_grad:
            # A reentrant checkpoint gives no gradient where its input needs none.
            hidden_states = hidden_states.requires_grad_(torch.is_grad_enabled())
        yield hidden_states
        layerdrop = self._setting("layerdrop") if self.training else 0.0
        # Where a layer's weights are spread over processes, all of them must run it.
        runs_all = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self)
        state = None
        for index, layer in enumerate(layers):
            is_dropped = index > 0 and layerdrop > 0 and float(torch.rand(())) < layerdrop
            if is_dropped and not runs_all:
                hidden_states = keep_in_graph(hidden_states, layer.parameters())
            else:
                hidden_states, state = self._run_layer(layer, hidden_states, is_frame, state)
            yield hidden_states

    def _run_layer(
        self, layer: Any, hidden_states: torch.Tensor, is_frame: torch.Tensor | None, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """Gives a layer's (B, T, C) frames, and what the next one must know of it."""
        mask = None if is_frame is None else is_frame[:, None, None, :]
        # By position: a reentrant checkpoint follows no tensor that comes by keyword.
        return layer(hidden_states, mask), None

    def _spec_augment(
        self, hidden_states: torch.Tensor, num_frames: torch.Tensor | None
    ) -> torch.Tensor:
        """Masks spans of frames with the learnt vector, and spans of features with zero."""
        config, device = self.encoder_config, hidden_states.device
        batch_size, longest, hidden_size = hidden_states.shape
        masked: Any = getattr(self._model, "masked_spec_embed", None)
        if not config["apply_spec_augment"]:
            return keep_in_graph(hidden_states, [masked])
        if config["mask_time_prob"] > 0:
            spans = draw_spans(
                [longest] * batch_size if num_frames is None else num_frames.tolist(),
                longest,
                *(config[f"mask_time_{name}"] for name in ("prob", "length", "min_masks")),
            ).to(device)
            embed = masked.to(hidden_states.dtype)
            hidden_states = torch.where(spans[..., None], embed, hidden_states)
        else:
            hidden_states = keep_in_graph(hidden_states, [masked])
        if config["mask_feature_prob"] > 0:
            spans = draw_spans(
                [hidden_size] * batch_size,
                hidden_size,
                *(config[f"mask_feature_{name}"] for name in ("prob", "length", "min_masks")),
            ).to(device)
            hidden_states = hidden_states.masked_fill(spans[:, None], 0.0)
        return hidden_states

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Says if ``folder`` is a model of the family as transformers saves one."""
        return is_upstream_folder(cls.upstream, folder)

    @classmethod
    def load_pretrained(cls, folder: Path) -> PretrainedParts:
        """Reads a folder of transformers.

        Where the folder has no x-vector head, the head's names are in ``untrained_prefixes``.

        Raises:
            UserError: a file is missing or damaged, or the model has parts not known here.
        """
        parts = read_upstream_folder(cls.upstream, folder)
        parts.state_dict.update(cls._constants(parts.encoder_config))
        settings = preprocessor_settings(folder)
        parts.feature_settings.update(cls._feature_settings(parts.encoder_config, settings))
        return parts

    @classmethod
    def _constants(cls, encoder_config: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Gives the buffers here that upstream's weights do not have."""
        return {}

    @classmethod
    def _feature_settings(
        cls, encoder_config: dict[str, Any], settings: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Gives how a waveform is prepared.

        Args:
            encoder_config: Completed arguments.
            settings: ``preprocessor_config.json``; None: as the published models have it.
        """
        return {}

    @classmethod
    def default_feature_settings(cls, encoder_config: dict[str, Any]) -> dict[str, Any]:
        """Gives ``do_normalize`` as the published model of this architecture has it."""
        return cls._feature_settings(complete_ssl_config(cls.upstream, encoder_config), None)
