"""Starts a page on this machine: are two recordings one speaker, and who of the enrolled is it.

example:
  speaker-encoder demo dvector
  speaker-encoder demo runs/mine --results eval/results.json --port 7870
  speaker-encoder demo runs/mine --space my_space
The page is served on 127.0.0.1 alone and sends nothing anywhere; what is recorded or uploaded is
deleted after an hour, and when the page ends (Ctrl-C, kill). --space writes the files of a Hugging
Face Space instead.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from speaker_encoder.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.verification.thresholds import Threshold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `demo`."""
    parser.add_argument(
        "model", metavar="MODEL", help="a name, Hub id, model folder, run or checkpoint"
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="of 127.0.0.1 (default: the first free from 7860 on)"
    )
    parser.add_argument("--threshold", type=float, metavar="SCORE", help="where the slider starts")
    parser.add_argument(
        "--results", metavar="FILE",
        help="start at the threshold in the results.json of an evaluation of this model",
    )  # fmt: skip
    parser.add_argument(
        "--space", metavar="DIR", help="write the files of a Hugging Face Space to a new folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serves the page or writes the Space; gives the exit code."""
    from pathlib import Path

    from speaker_encoder.demo.page import build_page, refuse_missing_gradio, serve
    from speaker_encoder.demo.space import refuse_folder
    from speaker_encoder.verification.systems import load_any_encoder

    _refuse(arguments)
    refuse_missing_gradio()
    if arguments.space is not None:
        refuse_folder(Path(arguments.space).expanduser())
    encoder = load_any_encoder(arguments.model)
    threshold = _threshold(arguments, encoder)
    name = _public_name(arguments.model)
    if arguments.space is not None:
        return _write_space(arguments, encoder, name, threshold)
    _end_as_with_ctrl_c()
    page = build_page(encoder, name, threshold)
    print(f"{serve(page, arguments.port)} (Ctrl-C ends it)", flush=True)
    page.block_thread()
    return EXIT_DONE


def _end_as_with_ctrl_c() -> None:
    """Lets a kill, or the closing of the terminal, delete the visitors' recordings too."""
    import signal

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has one of them
            signal.signal(getattr(signal, name), signal.default_int_handler)


def _refuse(arguments: argparse.Namespace) -> None:
    """Checks the arguments before the encoder is loaded.

    Raises:
        UserError: one of them makes no sense.
    """
    if arguments.threshold is not None and arguments.results is not None:
        raise UserError("--threshold and --results both give a threshold. Leave one out.")
    if arguments.threshold is not None and not -1 <= arguments.threshold <= 1:
        raise UserError(f"--threshold must be a cosine in [-1, 1], found {arguments.threshold}.")
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        raise UserError(f"--port must be in [1, 65535], found {arguments.port}.")


def _write_space(
    arguments: argparse.Namespace,
    encoder: SpeakerEncoder,
    name: str,
    threshold: Threshold | None,
) -> int:
    from speaker_encoder.demo.space import write_space

    files = write_space(
        encoder, arguments.space, name, hub_id=_hub_id(arguments.model), threshold=threshold
    )
    print(f"written to {arguments.space}: {', '.join(files)}")
    print(
        "try it:     python app.py, in that folder\n"
        "publish it: hf repos create OWNER/NAME --type space --sdk gradio\n"
        f"            hf upload OWNER/NAME {arguments.space} --repo-type space"
    )
    return EXIT_DONE


def _threshold(arguments: argparse.Namespace, encoder: SpeakerEncoder) -> Threshold | None:
    from speaker_encoder.export.model import weights_digest
    from speaker_encoder.verification.thresholds import (
        Threshold,
        published_threshold,
        threshold_of_results,
    )

    if arguments.threshold is not None:
        return Threshold(arguments.threshold, "the threshold that was given")
    if arguments.results is not None:
        return threshold_of_results(arguments.results, weights_digest(encoder))
    return published_threshold(arguments.model)


def _hub_id(model: str) -> str | None:
    """Where others find the encoder on the Hub; None where it lies on this machine."""
    from pathlib import Path

    from speaker_encoder.modeling.registry import NAMES

    if model in NAMES:
        return NAMES[model].hub_id
    return None if Path(model).expanduser().exists() else model


def _public_name(model: str) -> str:
    """What the page calls the encoder: no path of this machine."""
    from pathlib import Path

    place = Path(model).expanduser()
    return place.resolve().name if place.exists() else model
