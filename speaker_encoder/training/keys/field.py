"""How a key of the config is declared: kind, default and meaning."""

from __future__ import annotations

import dataclasses
from typing import Any

from speaker_encoder.training.config_kinds import Kind, Text

REQUIRED = dataclasses.MISSING


def key(kind: Kind, default: Any, help_text: str) -> Any:
    """A dataclass field that knows its kind and its help text.

    Args:
        kind: what values are possible.
        default: as in the JSON file; `REQUIRED` where there is none.
        help_text: what the key means.
    """
    is_secret = isinstance(kind, Text) and kind.is_secret
    metadata = {"kind": kind, "help": help_text, "default": default, "is_secret": is_secret}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, repr=not is_secret, metadata=metadata)


def device(*, allows_best: bool) -> Text:
    """The kind of a key that names a device."""
    names = "best|cpu|cuda" if allows_best else "cpu|cuda"
    words = '"cpu", "cuda" or "cuda:<number>"'
    return Text(
        pattern=rf"^({names}|cuda:[0-9]{{1,3}})(?![\s\S])",
        what=f'"best", {words}' if allows_best else words,
    )
