"""The commands' entry: arguments in, exit code out."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from speaker_encoder import __version__
from speaker_encoder.errors import EXIT_BUG, EXIT_USER, ProcessLostError, UserError

COMMANDS = {
    "train": "fine-tune a speaker encoder as a JSON config says",
    "embed": "write the embeddings of a corpus, for TTS",
    "plot": "draw embeddings, and how alike the speakers are",
    "evaluate": "measure encoders on verification trials: EER, minDCF, Cllr",
    "interpolate": "find the best encoder between a pretrained and a fine-tuned one",
    "compare-embeddings": "say how alike two exports of the same corpus are",
    "check-trials": "find what is wrong with a trial list",
    "verify": "say whether two recordings are of one speaker",
    "prepare": "make a corpus of archives that you downloaded: VoxCeleb, LibriSpeech, MUSAN, ...",
    "doctor": "find what ruins a training in a corpus, before it begins",
    "push": "publish a trained encoder on the Hugging Face Hub",
    "demo": "show a page on which people try an encoder",
    "convert": "write an encoder for ONNX Runtime, SpeechBrain or transformers",
}
"""Command -> what it does; each is one module of this folder."""

_EXIT_INTERRUPTED = 130


class Command(Protocol):
    """A module of this folder."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does the command and gives its exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `speaker-encoder <command>`."""
    parser = argparse.ArgumentParser(
        prog="speaker-encoder",
        description="Fine-tune speaker encoders on your own voices, and use what came out.",
        epilog="example: speaker-encoder train --config train_config.json",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, purpose in COMMANDS.items():
        module = _module(name)
        command = commands.add_parser(
            name,
            help=purpose,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    arguments = parser.parse_args(argv)
    return guarded(lambda: _module(arguments.command).run(arguments))


def main_of(name: str, argv: Sequence[str] | None = None) -> int:
    """Runs one command as a script of its own."""
    module = _module(name)
    parser = argparse.ArgumentParser(
        description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    arguments = parser.parse_args(argv)
    return guarded(lambda: module.run(arguments))


def _module(name: str) -> Command:
    return import_module(f"speaker_encoder.cli.{name.replace('-', '_')}")


def guarded(command: Callable[[], int]) -> int:
    """Turns what the user must change into one message and exit code 2.

    Anything else that is raised is a bug and keeps its traceback.
    """
    from speaker_encoder.training.run_files import is_disk_full

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may be no valid text
            stream.reconfigure(errors="backslashreplace")
    rank = os.environ.get("RANK", "0")
    name = "error" if rank == "0" else f"error in process {rank}"
    try:
        return command()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_USER
    except ProcessLostError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_BUG
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED
    except OSError as error:
        if not is_disk_full(error):
            raise
        print(
            f"{name}: the disk is full: {error}. Free some space; the last complete checkpoint is "
            "untouched, and the same command with force_restart false goes on from it.",
            file=sys.stderr,
        )
        return EXIT_USER
