"""Finds the best encoder between a pretrained and a fine-tuned one, on trials of both worlds.

Fine-tuning gains on the new speech and forgets the old; the weights between keep most of both. Only
an alpha that beats the pretrained encoder (alpha 0) beyond noise is taken: with reference trials
the one with the lowest validation EER that keeps the reference EER; without, the smallest within
noise of the lowest. Both must have a trained head, and the same one. A run chooses so by itself: of
such a run, named as FINETUNED, the trained model is taken, not the encoder between that it left.

example:
  speaker-encoder interpolate dvector runs/mine --trials dev.txt --data_root my_corpus \\
      --reference_trials old.txt --reference_data_root old_corpus --output_dir runs/between
  speaker-encoder interpolate ecapa runs/seed0 runs/seed1 runs/seed2 --average \\
      --data_root my_dev_speakers --output_dir runs/soup
  speaker-encoder evaluate --model runs/between --trials test.txt --data_root my_corpus
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from speaker_encoder.errors import EXIT_DONE, EXIT_PARTLY, UserError

if TYPE_CHECKING:
    from speaker_encoder.training.interpolation_run import InterpolationOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `interpolate`."""
    parser.add_argument(
        "pretrained", metavar="PRETRAINED", help="a name, Hub id, model folder, run or checkpoint"
    )
    parser.add_argument(
        "finetuned",
        nargs="+",
        metavar="FINETUNED",
        help="what was fine-tuned from it; a run: what it trained",
    )
    parser.add_argument(
        "--average",
        action="store_true",
        help="of several FINETUNED take the mean of their weights",
    )
    parser.add_argument("--trials", metavar="FILE", help="labelled validation trials")
    parser.add_argument(
        "--data_root",
        metavar="DIR",
        help="what their paths are relative to; alone: the corpus to make trials of",
    )
    parser.add_argument(
        "--reference_trials", metavar="FILE", help="labelled trials that must not get worse"
    )
    parser.add_argument(
        "--reference_data_root",
        metavar="DIR",
        help="of these trials, default: --data_root; alone: the corpus to make them of",
    )
    parser.add_argument(
        "--alphas",
        metavar="A,B,...",
        help="to measure; 0 and 1 always are (default: 0,0.1,...,1)",
    )
    parser.add_argument(
        "--forgetting_tolerance",
        type=float,
        default=0.1,
        metavar="PART",
        help="by which the reference EER may rise (default: 0.1, that is 10 %% of it)",
    )
    parser.add_argument(
        "--allow_worse",
        action="store_true",
        help="choose among all alphas, also those that do not beat the pretrained encoder beyond "
        "noise",
    )
    parser.add_argument(
        "--output_dir", metavar="DIR", help="model/, interpolation.json and interpolation.png"
    )
    parser.add_argument(
        "--model_device", default="best", help="cpu, cuda, cuda:<number>, best (default)"
    )
    parser.add_argument("--batch_size", type=int, default=16, help="default: 16")
    parser.add_argument(
        "--no_cache", action="store_true", help="keep no embeddings in the user's cache folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Interpolates; gives the exit code."""
    from pathlib import Path

    from speaker_encoder.training.interpolation_report import (
        check_output,
        format_interpolation,
        write_interpolation,
    )
    from speaker_encoder.training.interpolation_run import measure_interpolation
    from speaker_encoder.training.logs import log_to_terminal

    log_to_terminal()
    options = _options_of(arguments)
    options.check()
    folder = None if arguments.output_dir is None else Path(arguments.output_dir).expanduser()
    if folder is not None:
        check_output(folder)
    found = measure_interpolation(options)
    print(format_interpolation(found), flush=True)
    if folder is not None:
        write_interpolation(found, options, folder)
        print(f"\nmodel   {folder / 'model'}\nresults {folder / 'interpolation.json'}")
    unreadable = [data.unreadable for data in (found.validation, found.reference) if data]
    return EXIT_PARTLY if any(unreadable) else EXIT_DONE


def _options_of(arguments: argparse.Namespace) -> InterpolationOptions:
    from speaker_encoder.training.interpolation_curve import ALPHAS
    from speaker_encoder.training.interpolation_run import InterpolationOptions

    count = len(arguments.finetuned)
    if arguments.average != (count > 1):
        raise UserError(
            f"--average is for two or more fine-tuned encoders, found {count}: leave it out."
            if arguments.average
            else f"{count} fine-tuned encoders are given. To take the mean of their weights, add "
            "--average; to try each, give one."
        )
    alphas = ALPHAS
    if arguments.alphas is not None:
        try:
            alphas = tuple(float(word) for word in arguments.alphas.split(","))
        except ValueError as error:
            raise UserError(
                f"--alphas are numbers with commas, such as 0,0.25,0.5; found {arguments.alphas!r}."
            ) from error
    return InterpolationOptions(
        pretrained=arguments.pretrained,
        finetuned=tuple(arguments.finetuned),
        trials=arguments.trials,
        data_root=arguments.data_root,
        reference_trials=arguments.reference_trials,
        reference_data_root=arguments.reference_data_root,
        alphas=alphas,
        forgetting_tolerance=arguments.forgetting_tolerance,
        allow_worse=arguments.allow_worse,
        model_device=arguments.model_device,
        batch_size=arguments.batch_size,
        use_cache=not arguments.no_cache,
    )
