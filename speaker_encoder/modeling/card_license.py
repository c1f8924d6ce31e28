"""Reads the licence that a folder's own model card names; none is guessed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_HEADER = re.compile(r"\A\s*---\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_MAX_CHARACTERS = 1 << 16


def read_card_license(folder: Path, hub_id: str | None = None) -> dict[str, str]:
    """Gives the licence in the YAML header of a folder's ``README.md``.

    Args:
        folder: Of an encoder.
        hub_id: The repository that it is a copy of; a file that its card links to lies there.

    Returns:
        ``source_license``, ``source_license_name`` and ``source_license_link`` of a
        ``SpeakerEncoderConfig``, as far as the card has them; nothing where there is no card, or
        where it names no licence or several.
    """
    header = _read_header(folder / "README.md")
    identifier = _text(header.get("license"))
    if identifier is None or not _IDENTIFIER.fullmatch(identifier):
        return {}
    found = {"source_license": identifier}
    name, link = _text(header.get("license_name")), _text(header.get("license_link"))
    if name is not None:
        found["source_license_name"] = name
    if link is not None and hub_id is not None and not link.startswith(("http://", "https://")):
        link = f"https://huggingface.co/{hub_id}/blob/main/{link}"
    if link is not None and link.startswith(("http://", "https://")):
        found["source_license_link"] = link
    return found


def _read_header(path: Path) -> dict[str, Any]:
    """Gives a card's YAML header as plain data; empty where it has none that can be read."""
    import yaml

    try:
        with open(path, encoding="utf-8-sig") as file:
            match = _HEADER.match(file.read(_MAX_CHARACTERS))
        content = yaml.safe_load(match[1]) if match else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(value: object) -> str | None:
    """Gives one line of text, None for anything else."""
    is_line = isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()
    return str(value) if is_line else None
