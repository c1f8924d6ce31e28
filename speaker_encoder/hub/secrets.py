"""What must not leave this machine: secrets, and where things lie on it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from speaker_encoder.errors import UserError

REMOVED = "<removed>"
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)
_TOKEN = re.compile(r"\b(hf|hf_oauth|api_org|ghp|sk)_[A-Za-z0-9]{16,}")
_LOCAL_PATH = re.compile(r"^(/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|file:)|[\\]|[\s=:,'\"]/\w+/")
_LEAST_SECRET = 8
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_TEXT_SUFFIXES = (".json", ".md", ".yaml", ".txt", ".svg")
_CHUNK = 1 << 22


def known_secrets(given: Iterable[str | None] = ()) -> set[str]:
    """Gives the secrets that this process can see.

    Args:
        given: further ones, such as a token of a config.
    """
    from huggingface_hub import get_token

    found = {value for value in given if value}
    found |= {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    token = get_token()
    if token:
        found.add(token)
    # A switch such as 1 or true is no secret, nor is the path of a file that holds one.
    return {value for value in found if len(value) >= _LEAST_SECRET and not _is_path(value)}


def _is_path(value: str) -> bool:
    """Says if it is a file's or folder's; a secret, too, may begin with a slash."""
    try:
        return Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for one, or of nobody's home
        return False


def lend_token(environment: MutableMapping[str, str], token: str | None) -> None:
    """Puts a config's token into an environment that has none of its own.

    Args:
        environment: of a process that will talk to the Hub.
        token: of the config, if it has one.
    """
    if token and not any(environment.get(name, "").strip() for name in _TOKEN_VARIABLES):
        environment["HF_TOKEN"] = token


def without_local(value: Any, secrets: Iterable[str] = ()) -> Any:
    """Gives plain JSON data without local paths, secrets, and keys that are named like one.

    Args:
        value: plain JSON data.
        secrets: values that no text may hold.
    """
    if isinstance(value, Mapping):
        return {
            without_local(name, secrets): without_local(item, secrets)
            for name, item in value.items()
            if not _names_a_secret(str(name), item)
        }
    if isinstance(value, (list, tuple)):
        return [without_local(item, secrets) for item in value]
    if not isinstance(value, str):
        return value
    if _is_local(value):
        return REMOVED
    if _TOKEN.search(value) or any(secret in value for secret in secrets):
        return REMOVED
    return value


def _names_a_secret(name: str, value: Any) -> bool:
    return isinstance(value, str) and _SECRET_NAME.search(name) is not None


def _is_local(text: str) -> bool:
    return _LOCAL_PATH.search(text) is not None or _home() in text


def _home() -> str:
    """The user's folder with a slash; what every path has where it is the root."""
    return str(Path.home()).rstrip("/") + "/"


def refuse_secrets(folder: Path, secrets: Iterable[str]) -> None:
    """Checks every file below a folder before it is uploaded.

    Args:
        folder: what will be uploaded.
        secrets: as ``known_secrets`` gives them.

    Raises:
        UserError: a file holds a secret or, in a text, the user's folder; it is not shown.
    """
    wanted = [form.encode() for secret in secrets for form in {secret, json.dumps(secret)[1:-1]}]
    overlap = max([1024, *map(len, wanted)])
    home = _home().encode() if len(_home()) > 1 else None
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        is_text = path.suffix in _TEXT_SUFFIXES
        for content in _pieces(path, overlap):
            if any(secret in content for secret in wanted):
                _refuse(path.relative_to(folder), "a secret of this machine's environment")
            if is_text and _TOKEN.search(content.decode("utf-8", "replace")):
                _refuse(path.relative_to(folder), "what looks like an access token")
            if is_text and home is not None and home in content:
                _refuse(path.relative_to(folder), "a path of your home folder")


def _pieces(path: Path, overlap: int) -> Iterable[bytes]:
    """Gives a file's content in pieces that overlap, so that nothing hides at a border."""
    with open(path, "rb") as file:
        tail = b""
        while piece := file.read(_CHUNK):
            yield tail + piece
            tail = piece[-overlap:]


def _refuse(name: Path, what: str) -> None:
    raise UserError(
        f"Nothing was pushed: {name} holds {what}. Take it out of the run's or model's folder, and "
        "push again."
    )
