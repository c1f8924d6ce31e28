"""The tables of encoder names and of backbone families."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone


@dataclass(frozen=True)
class NamedEncoder:
    """A published speaker encoder that users call by a short name.

    Attributes:
        encoder_kind: Its family, a key of ``BACKBONES``.
        hub_id: Its repository on the Hugging Face Hub; None: ``package`` ships the weights.
        package: The installed Python package that ships the weights.
        encoder_config: Where its architecture differs from the family's defaults.
    """

    encoder_kind: str
    hub_id: str | None = None
    package: str | None = None
    encoder_config: dict[str, Any] = field(default_factory=dict)


_WAVLM_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}

NAMES: dict[str, NamedEncoder] = {
    "ecapa": NamedEncoder("ecapa", "speechbrain/spkrec-ecapa-voxceleb"),
    "wavlm-base": NamedEncoder("wavlm", "microsoft/wavlm-base"),
    "wavlm-base-plus": NamedEncoder("wavlm", "microsoft/wavlm-base-plus"),
    "wavlm-base-sv": NamedEncoder("wavlm", "microsoft/wavlm-base-sv"),
    "wavlm-base-plus-sv": NamedEncoder("wavlm", "microsoft/wavlm-base-plus-sv"),
    "wavlm-large": NamedEncoder("wavlm", "microsoft/wavlm-large", encoder_config=_WAVLM_LARGE),
    "dvector": NamedEncoder("dvector", package="resemblyzer"),
}

BACKBONES: dict[str, str] = {
    "ecapa": "speaker_encoder.modeling.ecapa:EcapaBackbone",
    "wavlm": "speaker_encoder.modeling.wavlm:WavLMBackbone",
    "dvector": "speaker_encoder.modeling.dvector:DVectorBackbone",
}


def unknown_name(what: str, found: object, known: Iterable[str]) -> UserError:
    """Gives the error for a name that a table does not have: the known ones and the nearest."""
    names = sorted(known)
    nearest = difflib.get_close_matches(str(found), names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UserError(f"Unknown {what} {found!r}.{hint} Known: {', '.join(names)}.")


def backbone_class(encoder_kind: str) -> type[Backbone]:
    """Imports the class of a family.

    Raises:
        UserError: no such family.
    """
    if encoder_kind not in BACKBONES:
        raise unknown_name("encoder_kind", encoder_kind, BACKBONES)
    module_name, class_name = BACKBONES[encoder_kind].split(":")
    return getattr(importlib.import_module(module_name), class_name)
