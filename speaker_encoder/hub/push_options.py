"""How an encoder is pushed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PushOptions:
    """How an encoder is pushed.

    Attributes:
        repo_id: ``owner/name``.
        private: whether a repository that is made is private; None: the account's default.
        token: of the Hub; None: of the environment (HF_TOKEN) or of ``hf auth login``.
        revision: branch to push to; None: main.
        commit_message: None: one that names the package.
        dtype: in which weights are stored, "float32" or "bfloat16".
        include_loss: also the weights of the loss.
        license: identifier of the licence, where the base model's is not known.
        datasets: names of the training data for the card.
        allow_worse: also a run's model that is no better than the one that it started from.
        retry_seconds: pause before the second attempt; doubled before each further one.
        answer_seconds: a Hub that does not answer for so long is out of reach.
    """

    repo_id: str
    private: bool | None = None
    token: str | None = None
    revision: str | None = None
    commit_message: str | None = None
    dtype: str = "float32"
    include_loss: bool = False
    license: str | None = None
    datasets: tuple[str, ...] = ()
    allow_worse: bool = False
    retry_seconds: float = 2.0
    answer_seconds: float = 300.0
