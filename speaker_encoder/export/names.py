"""Names of output files, from ids that may hold anything."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_UNSAFE = re.compile(r"[^\w.\-+ ,@=()&'~#]")
_LONGEST = 200


def safe_name(text: str) -> str:
    """A file name of its own for each text; never one that leads out of its folder.

    Characters that some file system refuses are percent-encoded, and so are ``.`` and ``..``.
    """

    def encode(match: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))

    name = _UNSAFE.sub(encode, text)
    if not name.strip("."):
        name = name.replace(".", "%2E") or "%"
    if len(name.encode()) > _LONGEST:
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        name = name.encode()[: _LONGEST - 20].decode(errors="ignore") + f"%{digest}"
    return name


def safe_path(parts: Sequence[str]) -> Path:
    """A relative path of safe names."""
    return Path(*(safe_name(part) for part in parts))


def parts_of(utterance_id: str) -> list[str]:
    """The names in an utterance id, which is a path without its extension."""
    return [part for part in utterance_id.split("/") if part] or ["%"]


def flat_id(utterance_id: str) -> str:
    """An utterance id in one word, as tables of other tools want it: ``p225-p225_001``."""
    return "_".join(utterance_id.strip("/").replace("/", "-").split())


def short_ids(utterance_ids: Sequence[str]) -> list[str]:
    """A word for each utterance: its file name where all of these differ, else its whole path.

    Returns:
        One id without white space for each; no two are equal.
    """
    for make in (lambda text: "_".join(parts_of(text)[-1].split()), flat_id):
        words = [make(text) for text in utterance_ids]
        if len(set(words)) == len(words):
            return words
    taken: Counter[str] = Counter()
    unique = []
    for text in utterance_ids:
        word = flat_id(text)
        taken[word] += 1
        if taken[word] > 1:
            word += "-" + hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
        unique.append(word)
    return unique
