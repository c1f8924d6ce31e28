"""The heads that a self-supervised encoder can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speaker_encoder.training.config_kinds import Boolean, JsonSchema, Kind, Number, integer
from speaker_encoder.training.config_named import Option


@dataclass(frozen=True)
class Sizes(Kind):
    """A list of whole numbers from 1."""

    nullable: bool = False

    def _possible(self) -> str:
        return "a list of whole numbers at least 1"

    def _read(self, value: Any) -> list[int]:
        if not isinstance(value, (list, tuple)) or not value:
            raise self._refuse(value)
        return [int(integer(1).read(number)) for number in value]

    def _schema(self) -> JsonSchema:
        return {"type": "array", "items": integer(1).schema(), "minItems": 1}


_SIZE = integer(1)

HEADS: dict[str, dict[str, Option]] = {
    "xvector": {},
    "ecapa": {
        "channels": (Sizes(), [1024, 1024, 1024, 1024, 3072]),
        "kernel_sizes": (Sizes(), [5, 3, 3, 3, 1]),
        "dilations": (Sizes(), [1, 2, 3, 4, 1]),
        "groups": (Sizes(), [1, 1, 1, 1, 1]),
        "attention_channels": (_SIZE, 128),
        "se_channels": (_SIZE, 128),
        "res2net_scale": (_SIZE, 8),
        "lin_neurons": (_SIZE, 192),
        "global_context": (Boolean(), True),
        "dropout": (Number(least=0, most=1), 0.0),
    },
    "mean": {},
    "attentive_statistics": {"attention_channels": (_SIZE, 128), "embedding_dim": (_SIZE, 192)},
    "mhfa": {
        "num_heads": (_SIZE, 32),
        "compression_dim": (_SIZE, 128),
        "embedding_dim": (_SIZE, 256),
    },
}
"""Head -> its options; docs/encoders.md says what they mean."""
