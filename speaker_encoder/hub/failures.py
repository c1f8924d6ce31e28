"""What a failed push says, and which failure may pass by itself."""

from __future__ import annotations

from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.hub.names import push_command
from speaker_encoder.hub.push_options import PushOptions


class HubError(UserError):
    """The Hub could not be reached, or refused; the model is where it was."""


def _status(error: BaseException) -> int | None:
    """Gives the HTTP status of an error or of what caused it."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            return int(status)
        cause = cause.__cause__ or cause.__context__
    return None


def may_pass(error: BaseException) -> bool:
    """Says if the same request may succeed later: no answer, or a trouble of the server's own."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, (ValueError, OfflineModeIsEnabled)) and _status(error) is None:
        return False
    status = _status(error)
    return status is None or status == 429 or status >= 500


def explanation(error: BaseException, options: PushOptions, place: str | None) -> str:
    """Says in one message what went wrong, and what to do."""
    status, wanted = _status(error), f"Could not push to {options.repo_id}"
    if status == 401:
        what = (
            "the Hub does not accept the token, or there is none. Make one with the right to write "
            "(huggingface.co/settings/tokens) and set HF_TOKEN, or log in with `hf auth login`"
        )
    elif status == 403:
        owner = options.repo_id.split("/")[0]
        what = f"the token has no right to write there. Use one of {owner!r} with that right"
    elif status == 404:
        what = "the Hub has no such repository or branch, or the token may not see it"
    elif status is not None and status >= 500:
        what = f"the Hub has trouble of its own (status {status}). Try again later"
    elif status is not None:
        what = f"the Hub refuses it (status {status}): {shown(error, options)}"
    else:
        what = f"the Hub cannot be reached ({shown(error, options)})"
    return f"{wanted}: {what}. The model is unharmed.{_later(options, place)}"


def _later(options: PushOptions, place: str | None) -> str:
    return "" if place is None else f" Push it later with:\n  {command_of(options, place)}"


def command_of(options: PushOptions, place: str) -> str:
    """Gives the command that pushes a folder with these options."""
    return push_command(
        place,
        options.repo_id,
        private=options.private,
        include_loss=options.include_loss,
        dtype=options.dtype,
        revision=options.revision,
        license=options.license,
        datasets=options.datasets,
        allow_worse=options.allow_worse,
    )


def shown(error: BaseException, options: PushOptions) -> str:
    """Gives the first line of an error, without the token."""
    cause: Any = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    lines = str(cause).strip().splitlines() or [""]
    text = f"{type(cause).__name__}: {lines[0]}"
    return text.replace(options.token, "<token>") if options.token else text
