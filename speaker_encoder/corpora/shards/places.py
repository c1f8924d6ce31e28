"""Which shards an address means: a folder, a pattern such as ``vox-{000..120}.tar``, or a URL."""

from __future__ import annotations

import glob
import itertools
import os
import posixpath
import re
from pathlib import Path

from speaker_encoder.audio.ranges import file_system, is_remote, try_often
from speaker_encoder.errors import UserError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_SUFFIXES = (".tar", ".parquet")
_MOST_SHARDS = 1_000_000


def is_address(text: str) -> bool:
    """Whether a text means shards rather than a folder of recordings: a URL, or shards' names."""
    return is_remote(text) or text.endswith(_SUFFIXES)


def refuse_secrets(text: str) -> None:
    """Refuses an address with a password, or a query, which may be a signature.

    Raises:
        UserError: it has one; the text shows neither.
    """
    for scheme, rest in re.findall(r"(?=([A-Za-z][A-Za-z0-9+.-]*)://(.*))", text, re.DOTALL):
        host, _, port = re.split(r"[/?#]", rest, maxsplit=1)[0].partition(":")
        is_http = scheme.lower() in ("http", "https")
        found = None
        if "@" in host + port or (is_http and ":" not in port and re.search("[^0-9{},.]", port)):
            found = "a name or password"
        elif "?" in rest if is_http else re.search(r"[?][^/]*=", rest):  # elsewhere a wildcard
            found = "a query (what stands behind `?`), as signed addresses do"
        if found is not None:
            raise UserError(
                f"The address {scheme}://... holds {found}, which would be written into logs and "
                "configs. Leave it out, and give it as the storage's own library wants it, or copy "
                "the shards nearer."
            )


def expand_braces(text: str) -> list[str]:
    """The names that ``{000..012}`` and ``{a,b}`` in a text stand for, as a shell gives them.

    Raises:
        UserError: there are more than a million.
    """
    match = _BRACES.search(text)
    if match is None:
        return [text]
    if numbers := _RANGE.fullmatch(match[1]):
        first, last = int(numbers[1]), int(numbers[2])
        if abs(last - first) >= _MOST_SHARDS:
            raise UserError(f"{text} stands for more than {_MOST_SHARDS} shards.")
        step = 1 if first <= last else -1
        has_zeros = any(number.startswith("0") and len(number) > 1 for number in numbers.groups())
        width = max(map(len, numbers.groups())) if has_zeros else 0
        parts = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    else:
        parts = match[1].split(",")
    head, tail = text[: match.start()], expand_braces(text[match.end() :])
    return [head + part + rest for part, rest in itertools.product(parts, tail)]


def find_shards(address: str, suffix: str) -> list[str]:
    """The shards of an address, sorted.

    Args:
        address: a folder, which is searched with all below it, or the URL of one; a name with
            wildcards or braces; or a single shard.
        suffix: ``".tar"`` or ``".parquet"``.

    Raises:
        UserError: there are none, or the URL holds a secret.
    """
    refuse_secrets(address)
    if os.path.isfile(address):  # whatever its name looks like
        return [address]
    is_folder = not address.endswith(_SUFFIXES)
    pattern = f"{glob.escape(address)}/**/*{suffix}" if is_folder else address
    found: set[str] = set()
    for name in [pattern] if is_folder else expand_braces(pattern):
        if not glob.has_magic(name):
            found.add(name)
        elif is_remote(name):
            found.update(_find_remote(f"{address}/**/*{suffix}" if is_folder else name))
        else:
            found.update(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
    absent = [name for name in sorted(found) if not (is_remote(name) or os.path.isfile(name))]
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise UserError(f"{len(absent)} of {len(found)} shards do not exist: {shown}.")
    if not found:
        raise UserError(f"No shards {address}: no *{suffix} was found there. Check the path.")
    return sorted(found)


def _find_remote(pattern: str) -> list[str]:
    """The files that a URL with wildcards means."""
    if pattern.startswith(("http://", "https://")):
        raise UserError(
            f"{pattern}: a server of http does not say which files it has. Name the shards, as "
            "in https://host/folder/{000000..000120}.tar"
        )
    system, name = file_system(pattern)
    found = try_often(pattern, lambda: system.glob(name))
    return [system.unstrip_protocol(path) for path in found]


def folder_of(address: str) -> str:
    """The folder, or the URL of one, that the shards lie in: what stands before any wildcard."""
    if not address.endswith(_SUFFIXES):
        return address.rstrip("/") or "/"
    if os.path.isfile(address):
        return str(Path(address).parent)
    fixed = re.split(r"[*?\[{]", address, maxsplit=1)[0]
    return posixpath.dirname(fixed) if is_remote(address) else str(Path(fixed + "x").parent)
