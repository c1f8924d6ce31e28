"""The names of repositories, and the command that pushes to one; imports nothing heavy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
REPO_ID = rf"^(?![\s\S]*(--|\.\.)){_PART}/{_PART}(?![\s\S])"
"""``owner/name`` as the Hub accepts it."""


def push_command(
    folder: str,
    repo_id: str,
    *,
    private: bool | None = None,
    include_loss: bool = False,
    dtype: str = "float32",
    revision: str | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
    allow_worse: bool = False,
) -> str:
    """Gives the command that pushes a folder with these options; the token is never in it.

    Args:
        folder: of the run or the model.
        repo_id: ``owner/name``.
        private: as ``PushOptions``.
        include_loss: as ``PushOptions``.
        dtype: as ``PushOptions``.
        revision: as ``PushOptions``.
        license: as ``PushOptions``.
        datasets: as ``PushOptions``.
        allow_worse: as ``PushOptions``.
    """
    words = ["speaker-encoder", "push", folder, "--repo_id", repo_id]
    if private is not None:
        words.append("--private" if private else "--public")
    words += ["--include_loss"] if include_loss else []
    words += ["--dtype", dtype] if dtype != "float32" else []
    words += ["--revision", revision] if revision else []
    words += ["--license", license] if license else []
    for name in datasets:
        words += ["--dataset", name]
    words += ["--allow_worse"] if allow_worse else []
    return shlex.join(words)
