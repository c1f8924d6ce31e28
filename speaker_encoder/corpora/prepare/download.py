"""Downloads that go on where they were broken off."""

from __future__ import annotations

import base64
import errno
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from speaker_encoder.errors import UserError

PASSWORD_VARIABLE = "SPEAKER_ENCODER_PASSWORD"
_PIECE = 1 << 20
_TIMEOUT_S = 60.0
_NAME = re.compile(r"[\w.+-]+")


def file_name(address: str) -> str:
    """Gives the name under which an address is saved: its `file` argument, or its last part.

    Raises:
        UserError: there is no usable name in it.
    """
    parts = urllib.parse.urlsplit(address)
    given = urllib.parse.parse_qs(parts.query).get("file")
    name = os.path.basename(given[0] if given else urllib.parse.unquote(parts.path))
    if parts.scheme not in ("http", "https") or not _NAME.fullmatch(name) or name.startswith("."):
        raise UserError(
            f"{shown(address)} is no address of a file: wanted http(s)://.../archive.zip, or "
            "...?file=archive.zip."
        )
    return name


def shown(address: str) -> str:
    """Gives an address without user, password and arguments, which may be keys."""
    parts = urllib.parse.urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


def download(
    address: str, folder: Path, user: str | None, progress: Callable[[str, int, int], None]
) -> Path:
    """Downloads a file, unless it is there whole already.

    Args:
        address: http or https.
        folder: where it is saved, under its own name; `.<name>.download` until it is whole.
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
    part = folder / f".{name}.download"
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address)
    if user is not None:
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is None:
            raise UserError(f"--user {user} needs a password in the variable {PASSWORD_VARIABLE}.")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            is_rest = answer.status == 206
            done = have if is_rest else 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length is not None else 0
            with part.open("ab" if is_rest else "wb") as file:
                while piece := answer.read(_PIECE):
                    file.write(piece)
                    done += len(piece)
                    progress(f"downloading {name}", done, max(total, done))
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise UserError(_refusal(address, error.code)) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{shown(address)} cannot be reached: {reason}. The same command goes on from "
            f"{part.stat().st_size if part.is_file() else 0} bytes."
        ) from error
    else:
        if total and done < total:
            raise UserError(
                f"{shown(address)}: the connection was closed after {done} of {total} bytes. The "
                "same command goes on from there."
            )
    os.replace(part, target)
    return target


def _refusal(address: str, code: int) -> str:
    advice = {
        401: f"It wants a name and a password: --user NAME, and {PASSWORD_VARIABLE}.",
        403: "You have no access to it: ask for it, or check name and password.",
        404: "It is not there (any more): look for the address on the corpus's own page.",
    }
    return f"{shown(address)} answers {code}. {advice.get(code, 'Try again later.')}"
