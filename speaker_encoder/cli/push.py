"""Pushes a trained encoder to the Hugging Face Hub, in our form and in the upstream library's.

Everything is written to disk, read back by a fresh process in every form, and compared; only then
is anything uploaded, in one commit. The token is that of HF_TOKEN or of `hf auth login`.

example:
  speaker-encoder push runs/ecapa_run --repo_id your-name/my-speaker-encoder
  speaker-encoder push runs/ecapa_run --repo_id your-name/my-speaker-encoder --private
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from types import FrameType

from speaker_encoder.errors import EXIT_DONE

_UNWIND_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `push`."""
    parser.add_argument(
        "folder",
        metavar="RUN_OR_MODEL_DIR",
        help="the folder of a run, its model or a checkpoint, or any folder with a model",
    )
    parser.add_argument(
        "--repo_id", required=True, metavar="OWNER/NAME", help="the repository; made if need be"
    )
    visibility = parser.add_mutually_exclusive_group()
    visibility.add_argument(
        "--private",
        dest="private",
        action="store_const",
        const=True,
        default=None,
        help="make the repository a private one, if it is made",
    )
    visibility.add_argument(
        "--public",
        dest="private",
        action="store_const",
        const=False,
        help="make it a public one; without either: the account's default",
    )
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to; default: main")
    parser.add_argument("--commit_message", metavar="TEXT", help="message of the commit")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="how weights are stored; bfloat16 halves the files, and moves embeddings by up to "
        "1e-2 in cosine distance",
    )
    parser.add_argument(
        "--include_loss", action="store_true", help="also push the weights of the training loss"
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="identifier of the licence, where the base model's is not known and kept",
    )
    parser.add_argument(
        "--dataset",
        dest="datasets",
        action="append",
        default=[],
        metavar="NAME",
        help="training data named in the model card, a Hub id if it has one; repeatable",
    )
    parser.add_argument(
        "--allow_worse",
        action="store_true",
        help="push the model of a run that found nothing better than what it started from",
    )


def run(arguments: argparse.Namespace) -> int:
    """Pushes; gives the exit code."""
    from speaker_encoder.hub.push import PushOptions, push_folder

    names = ("repo_id", "private", "revision", "commit_message", "dtype", "include_loss", "license")
    options = PushOptions(
        **{name: getattr(arguments, name) for name in names},
        datasets=tuple(arguments.datasets),
        allow_worse=arguments.allow_worse,
    )
    with _ended_by_signals():
        outcome = push_folder(arguments.folder, options)
    for loader, difference in outcome.differences.items():
        print(f"read back with {loader}: embeddings differ by {difference:.1g} at most")
    print(f"pushed {len(outcome.files)} files to {outcome.url}, commit {outcome.commit[:12]}")
    return EXIT_DONE


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM end a push soon, and leave no files behind.

    Raising alone would not do: the client first waits for the uploads that are going on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timers: list[threading.Timer] = []

    def end(number: int, frame: FrameType | None) -> None:
        def at_once() -> None:
            shutil.rmtree(place, ignore_errors=True)
            os._exit(128 + number)

        timers.append(threading.Timer(_UNWIND_SECONDS, at_once))
        timers[-1].daemon = True
        timers[-1].start()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    ours = (signal.SIGINT, signal.SIGTERM)
    usual_place, place = tempfile.tempdir, tempfile.mkdtemp(prefix="speaker_encoder_push_")
    before = {number: signal.signal(number, end) for number in ours}
    try:
        tempfile.tempdir = place  # of all that is written on the way
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)
        tempfile.tempdir = usual_place
        for number, handler in before.items():
            signal.signal(number, handler)
        for timer in timers:
            timer.cancel()
