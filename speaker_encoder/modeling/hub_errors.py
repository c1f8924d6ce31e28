"""Says in one message why a repository of the Hub cannot be had, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from speaker_encoder.errors import UserError

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def out_of_reach(hub_id: str, name: str, revision: str | None, error: BaseException) -> UserError:
    """Gives the error for the user.

    Args:
        hub_id: ``owner/name``.
        name: what the user asked for.
        revision: what the user asked for; None: main.
        error: of huggingface_hub.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = f"Could not load {name!r}"
    wanted += f" ({hub_id} on the Hub)" if hub_id != name else ", which is no local folder either"
    causes = list(_causes(error))

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if is_any(GatedRepoError):
        return UserError(
            f"{wanted}: its owner gives access on request. Ask for it on the repository's page and "
            f"{_LOG_IN}."
        )
    if is_any(RepositoryNotFoundError):
        return UserError(
            f"{wanted}: the Hub has no such repository, or it is private. Check the name, or "
            f"{_LOG_IN}."
        )
    if is_any(RevisionNotFoundError):
        return UserError(
            f"{wanted}: the repository has no such revision {revision!r}. Check it: a branch, a "
            "tag or a commit's full sha."
        )
    if is_any(HFValidationError):
        return UserError(f"{wanted}: it is no name that a repository can have. Check it.")
    if any(type(cause) is ValueError for cause in causes):
        return UserError(
            f"{wanted}: it is refused, for the repository has file names that lead out of its "
            f"folder, or is damaged ({_first_line(error)}). Nothing of it was loaded. Do not use "
            "it, and tell the Hub."
        )
    status = next(filter(None, map(_status, causes)), None)
    if status == 401:
        return UserError(
            f"{wanted}: the Hub does not accept the token (401). Make a new one at "
            f"huggingface.co/settings/tokens and {_LOG_IN}."
        )
    if status == 403:
        return UserError(f"{wanted}: the token may not read it (403). Use one that may.")
    return UserError(f"{wanted}: {_not_reached(status, causes, error)}. {_without_network(hub_id)}")


def was_interrupted(error: BaseException) -> bool:
    """Says if a connection broke off or the Hub had a trouble, so that asking again may do."""
    causes = list(_causes(error))
    if any((getattr(getattr(c, "response", None), "status_code", 0) or 0) >= 500 for c in causes):
        return True
    names = {type(cause).__name__ for cause in causes}
    return bool(names & {"RemoteProtocolError", "ReadError", "WriteError"})


def _not_reached(status: int | None, causes: list[BaseException], error: BaseException) -> str:
    """Says what happened where the Hub gave no answer or had a trouble of its own."""
    if status is not None and status >= 500:
        what = f"has trouble of its own (status {status})"
    elif status is not None:
        what = f"refuses it (status {status})"
    elif any("Timeout" in type(cause).__name__ for cause in causes):
        what = "does not answer in time"
    else:
        what = "cannot be reached"
    return (
        f"the Hugging Face Hub {what}, and there is no copy in the local cache "
        f"({type(error).__name__}: {_first_line(error)})"
    )


def _without_network(hub_id: str) -> str:
    return (
        "Connect to the network and run it again; or download it on a machine that has one "
        f"(`hf download {hub_id} --local-dir <folder>`), copy that folder here and give its path "
        "in place of the name."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and what it came from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return int(status) if status is not None else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
