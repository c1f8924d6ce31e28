"""Publishing of an encoder that is in memory."""

from __future__ import annotations

import importlib
from typing import Any

PUBLISHER = "speaker_encoder.hub.push"
"""The module that pushes. Models do not depend on it: it is imported when it is asked for."""


class SharedOnHub:
    """What a speaker encoder has to be published with, in place of transformers' own way."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        dtype: str = "float32",
        include_loss: bool = False,
        license: str | None = None,
        datasets: tuple[str, ...] = (),
    ) -> str:
        """Pushes the encoder to the Hub, in our form and in the upstream library's.

        Everything is read back from disk by a fresh process and compared before anything is sent.
        What is known of a run is pushed with `speaker-encoder push RUN_DIR`.

        Args:
            repo_id: ``owner/name``; made if need be.
            private: whether a repository that is made is private; None: the account's default.
            token: of the Hub; None: of the environment (HF_TOKEN) or of ``hf auth login``.
            revision: branch to push to; None: main.
            commit_message: of the commit.
            dtype: in which weights are stored, "float32" or "bfloat16".
            include_loss: also the weights of an attached loss.
            license: identifier of the licence, where the base model's is not known.
            datasets: names of the training data, for the model card.

        Returns:
            The address of the repository.

        Raises:
            UserError: the Hub cannot be reached or refuses, the head is untrained, or what was
                read back is not this encoder.
        """
        publisher: Any = importlib.import_module(PUBLISHER)
        options = publisher.PushOptions(
            repo_id=repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            dtype=dtype,
            include_loss=include_loss,
            license=license,
            datasets=tuple(datasets),
        )
        return publisher.push_encoder(self, options).url
