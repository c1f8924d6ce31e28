"""Downloads that go on where they were broken off."""

from __future__ import annotations

import base64
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path

from speaker_encoder.corpora.prepare.written import FULL_DISK, whole_file
from speaker_encoder.errors import UserError

PASSWORD_VARIABLE = "SPEAKER_ENCODER_PASSWORD"
_PIECE = 1 << 20
_TIMEOUT_S = 60.0
_NAME = re.compile(r"[\w.+-]{1,200}", re.ASCII)
_NO_ADDRESS = re.compile(r"[^\x21-\x7e]")


def file_name(address: str) -> str:
    """Gives the name under which an address is saved: its `file` argument, or its last part.

    Raises:
        UserError: there is no usable name in it, or a name and a password.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        is_address = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        is_address = False
    if not is_address or _NO_ADDRESS.search(address):
        raise UserError(
            f"--download: {shown(address)!r} is no address: wanted http(s)://HOST/archive.zip."
        )
    if "@" in parts.netloc:
        raise UserError(
            f"--download: {shown(address)!r} is given with a name. Give it as --user NAME, and the "
            f"password in the variable {PASSWORD_VARIABLE}."
        )
    given = urllib.parse.parse_qs(parts.query).get("file")
    name = os.path.basename(given[0] if given else urllib.parse.unquote(parts.path))
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise UserError(
            f"{shown(address)} is no address of a file: wanted http(s)://.../archive.zip, or "
            "...?file=archive.zip."
        )
    return name


def shown(address: str) -> str:
    """Gives an address without user, password and arguments, which may be keys."""
    scheme, mark, rest = address.rpartition("://")
    place, *arguments = re.split("[?#;&]", rest, maxsplit=1)
    if "@" in "".join(arguments) and "@" not in place:
        place = "..."  # a password may hold any of these signs
    return scheme + mark + place.rpartition("@")[2]


def download(
    address: str, folder: Path, user: str | None, progress: Callable[[str, int, int], None]
) -> Path:
    """Downloads a file, unless it is there whole already.

    Args:
        address: http or https.
        folder: where it is saved, under its own name. Until it is whole it is
            `.<name>.download`, and `.<name>.version` says which of the server's versions it is of:
            of another, or an unknown one, it starts again.
        user: for servers that ask for a name; the password is in `SPEAKER_ENCODER_PASSWORD`.
        progress: is told (what, bytes done, bytes in all).

    Returns:
        Its path.

    Raises:
        UserError: the server cannot be reached, or refuses.
    """
    name = file_name(address)
    target = folder / name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part, version = folder / f".{name}.download", folder / f".{name}.version"
    request = urllib.request.Request(address)
    if user is not None:
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is None:
            raise UserError(f"--user {user} needs a password in the variable {PASSWORD_VARIABLE}.")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    have = part.stat().st_size if part.is_file() and version.is_file() else 0
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version.read_text("latin-1"))
    try:
        _fetch(request, have, part, version, lambda done, total: progress(
            f"downloading {name}", done, total))  # fmt: skip
    except _OtherVersionError as error:
        part.unlink(missing_ok=True)
        if not have:
            raise UserError(f"{shown(address)}: the server's answer makes no sense.") from error
        return download(address, folder, user, progress)
    except urllib.error.HTTPError as error:
        raise UserError(_refusal(address, error.code)) from error
    except UserError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise
        is_safe = isinstance(error, OSError)  # the text of others may be the address
        reason = getattr(error, "reason", error) if is_safe else type(error).__name__
        raise UserError(
            f"{shown(address)} cannot be reached: {reason}. {_next_time(part, version)}"
        ) from error
    os.replace(part, target)
    version.unlink(missing_ok=True)
    return target


class _OtherVersionError(Exception):
    """What is there already is not the beginning of what the server has."""


def _fetch(
    request: urllib.request.Request,
    have: int,
    part: Path,
    version: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Saves what is missing.

    Raises:
        _OtherVersionError: it has to start again.
        UserError: the connection was closed too early.
        HTTPError: the server refuses.
    """
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if have and error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
            return
        raise _OtherVersionError from error
    with answer:
        is_rest = answer.status == 206
        start = f"bytes {have}-"
        if is_rest and not (have and answer.headers.get("Content-Range", "").startswith(start)):
            raise _OtherVersionError
        done = have if is_rest else 0
        length = answer.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() else 0
        if not is_rest:
            version.unlink(missing_ok=True)
        with part.open("ab" if is_rest else "wb") as file:
            if not is_rest:
                _save_version(answer.headers, version)
            while piece := answer.read(_PIECE):
                file.write(piece)
                done += len(piece)
                progress(done, max(total, done))
    if done < total:
        raise UserError(
            f"{shown(request.full_url)}: the connection was closed after {done} of {total} bytes. "
            f"{_next_time(part, version)}"
        )


def _save_version(headers: Message, version: Path) -> None:
    """Keeps what the server calls this version of the file, if it is exact."""
    tag = headers.get("ETag", "")
    name = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    if name and name.isascii() and name.isprintable():
        with whole_file(version) as written:
            written.write_text(name, "latin-1")


def _next_time(part: Path, version: Path) -> str:
    have = part.stat().st_size if part.is_file() and version.is_file() else 0
    if have:
        return f"The same command goes on from {have} bytes."
    return "The same command starts again."


def _refusal(address: str, code: int) -> str:
    advice = {
        401: f"It wants a name and a password: --user NAME, and {PASSWORD_VARIABLE}.",
        403: "You have no access to it: ask for it, or check name and password.",
        404: "It is not there (any more): look for the address on the corpus's own page.",
    }
    return f"{shown(address)} answers {code}. {advice.get(code, 'Try again later.')}"
