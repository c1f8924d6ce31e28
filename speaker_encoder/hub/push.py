"""Pushes an encoder to the Hugging Face Hub: written, read back, compared, and only then sent."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.hub.check import check_contents
from speaker_encoder.hub.contents import LOSS_FILE, ContentOptions, write_contents
from speaker_encoder.hub.failures import HubError, explanation, may_pass, shown
from speaker_encoder.hub.names import REPO_ID
from speaker_encoder.hub.no_better import refuse_no_better
from speaker_encoder.hub.push_options import PushOptions
from speaker_encoder.hub.secrets import known_secrets, refuse_secrets
from speaker_encoder.hub.source import ModelSource, find_source
from speaker_encoder.hub.upstream_forms import SPEECHBRAIN_FILES, TRANSFORMERS_SUBFOLDER
from speaker_encoder.modeling.sources import SPACE_NAME

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from speaker_encoder.modeling import SpeakerEncoder

__all__ = ["HubError", "PushOptions", "PushOutcome", "push_encoder", "push_folder"]

_logger = logging.getLogger(__name__)

_NUM_ATTEMPTS = 3
_OURS = (
    *SPEECHBRAIN_FILES,
    LOSS_FILE,
    SPACE_NAME,
    "train_config.json",
    "results.json",
    "plots/umap.png",
    "plots/det.png",
    "plots/interpolation.png",
    "plots/curve.png",
)


@dataclass(frozen=True)
class PushOutcome:
    """What was pushed.

    Attributes:
        url: address of the repository.
        commit: its commit.
        files: their names.
        differences: loader that read it back -> largest difference of a component of an embedding.
    """

    url: str
    commit: str
    files: tuple[str, ...]
    differences: dict[str, float] = field(default_factory=dict)


def push_folder(folder: str | Path, options: PushOptions) -> PushOutcome:
    """Pushes the model of a run's or a model's folder.

    Args:
        folder: a run, its ``model``, one of its checkpoints, or any folder that
            ``from_pretrained`` loads.
        options: where to and how.

    Raises:
        HubError: the Hub cannot be reached, or refuses.
        UserError: there is no model, its run found that it is no better than the one before, or
            what was written is not what would be pushed.
    """
    from speaker_encoder.modeling import SpeakerEncoder

    _check_options(options)
    source = find_source(folder)
    if not options.allow_worse:
        refuse_no_better(source, options, str(folder))
    encoder = SpeakerEncoder.from_pretrained(source.model_dir)
    return _push(encoder, options, source, str(folder))


def push_encoder(encoder: SpeakerEncoder, options: PushOptions) -> PushOutcome:
    """Pushes an encoder that is in memory; nothing of it is changed.

    Args:
        encoder: on any device, in any mode.
        options: where to and how.

    Raises:
        HubError: the Hub cannot be reached, or refuses.
        UserError: what was written is not what would be pushed.
    """
    _check_options(options)
    with _on_cpu_in_eval(encoder):
        return _push(encoder, options, None, None)


@contextlib.contextmanager
def _on_cpu_in_eval(encoder: SpeakerEncoder) -> Iterator[None]:
    device, was_training = encoder.device, encoder.training
    module: torch.nn.Module = encoder
    module.to("cpu").eval()
    try:
        yield
    finally:
        module.to(device).train(was_training)


def _check_options(options: PushOptions) -> None:
    """Checks what can be known before anything is done.

    Raises:
        UserError: the name cannot be a repository's.
    """
    if not re.search(REPO_ID, options.repo_id):
        raise UserError(
            f"repo_id: found {options.repo_id!r}, wanted owner/name, such as "
            "'your-name/my-speaker-encoder': letters, digits, '-', '_' and '.'."
        )


def _push(
    encoder: SpeakerEncoder, options: PushOptions, source: ModelSource | None, place: str | None
) -> PushOutcome:
    """Writes, checks, and uploads."""
    encoder.refuse_untrained_head()
    secrets = known_secrets([options.token])
    if any(secret in (options.commit_message or "") for secret in secrets):
        raise UserError("Nothing was pushed: commit_message holds a secret. Write another one.")
    contents = ContentOptions(
        repo_id=options.repo_id,
        dtype=options.dtype,
        include_loss=options.include_loss,
        license=options.license,
        datasets=options.datasets,
        secrets=frozenset(secrets),
    )
    with tempfile.TemporaryDirectory(prefix="speaker_encoder_push_") as temporary:
        folder = Path(temporary) / options.repo_id.split("/")[-1]
        write_contents(encoder, folder, contents, source)
        is_bfloat16 = next(encoder.parameters()).dtype == torch.bfloat16
        is_bfloat16 = is_bfloat16 or options.dtype == "bfloat16"
        differences = check_contents(encoder, folder, is_bfloat16) or {}
        refuse_secrets(folder, secrets)
        _logger.info("read back and compared; pushing to %s", options.repo_id)
        outcome = _upload_with_patience(folder, options, place)
    return replace(outcome, differences=differences)


def _upload_with_patience(folder: Path, options: PushOptions, place: str | None) -> PushOutcome:
    """Uploads; what may pass by itself is tried again.

    Raises:
        HubError: it did not pass, or the Hub refuses.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    for attempt in range(1, _NUM_ATTEMPTS + 1):
        try:
            with _quiet_without_terminal(), _not_for_ever(options.answer_seconds):
                return _upload(folder, options)
        except (HfHubHTTPError, HTTPError, OSError, RuntimeError, ValueError) as error:
            if attempt == _NUM_ATTEMPTS or not may_pass(error):
                raise HubError(explanation(error, options, place)) from error
            _logger.warning(
                "pushing to %s failed (%s), trying again", options.repo_id, shown(error, options)
            )
            time.sleep(options.retry_seconds * 2 ** (attempt - 1))
    raise AssertionError("an attempt returns or raises")


@contextlib.contextmanager
def _quiet_without_terminal() -> Iterator[None]:
    """Keeps the client's progress bars out of a log file."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    is_silenced = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if is_silenced:
        disable_progress_bars()
    try:
        yield
    finally:
        if is_silenced:
            enable_progress_bars()


@contextlib.contextmanager
def _not_for_ever(seconds: float) -> Iterator[None]:
    """Gives the client, which has none, a time-out for each answer."""
    from huggingface_hub.utils import get_session

    client = get_session()
    before, client.timeout = client.timeout, seconds
    try:
        yield
    finally:
        client.timeout = before


def _upload(folder: Path, options: PushOptions) -> PushOutcome:
    """Makes the repository if need be, and all of it one commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=options.token, library_name="speaker-encoder")
    api.create_repo(options.repo_id, private=options.private, exist_ok=True)
    if options.private and not api.model_info(options.repo_id).private:
        raise UserError(
            f"{options.repo_id} exists and is public; nothing was sent. Make it private on the "
            "Hub, push to another repository, or leave --private out."
        )
    if options.revision:
        api.create_branch(options.repo_id, branch=options.revision, exist_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = tuple(path.relative_to(folder).as_posix() for path in files)
    stale = _stale(api, options, set(names))
    commit = api.create_commit(
        options.repo_id,
        [
            *(CommitOperationAdd(n, str(path)) for n, path in zip(names, files, strict=True)),
            *(CommitOperationDelete(name) for name in stale),
        ],
        commit_message=options.commit_message or "Upload with speaker-encoder",
        revision=options.revision,
    )
    return PushOutcome(f"{api.endpoint}/{options.repo_id}", commit.oid, names)


def _stale(api: HfApi, options: PushOptions, names: set[str]) -> list[str]:
    """Gives files of an earlier push by this package that this one does not have."""
    there = api.list_repo_files(options.repo_id, revision=options.revision)
    ours = [n for n in there if n in _OURS or n.startswith(f"{TRANSFORMERS_SUBFOLDER}/")]
    return sorted(set(ours) - names)
