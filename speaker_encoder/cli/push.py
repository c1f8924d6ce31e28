"""Pushes a trained encoder to the Hugging Face Hub, in our form and in the upstream library's.

Everything is written to disk, read back by a fresh process in every form, and compared; only then
is anything uploaded, in one commit. The token is that of HF_TOKEN or of `hf auth login`.

example:
  speaker-encoder push runs/ecapa_run --repo_id your-name/my-speaker-encoder
  speaker-encoder push runs/ecapa_run --repo_id your-name/my-speaker-encoder --private
"""

from __future__ import annotations

import argparse

from speaker_encoder.errors import EXIT_DONE


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


def run(arguments: argparse.Namespace) -> int:
    """Pushes; gives the exit code."""
    from speaker_encoder.hub.push import PushOptions, push_folder

    names = ("repo_id", "private", "revision", "commit_message", "dtype", "include_loss", "license")
    options = PushOptions(
        **{name: getattr(arguments, name) for name in names}, datasets=tuple(arguments.datasets)
    )
    outcome = push_folder(arguments.folder, options)
    print(f"pushed {len(outcome.files)} files to {outcome.url}, commit {outcome.commit[:12]}")
    return EXIT_DONE
