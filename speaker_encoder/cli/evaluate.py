"""Measures speaker encoders on verification trials: EER, minDCF, Cllr, each with an interval.

example:
  speaker-encoder evaluate --model ecapa --trials veri_test2.txt --data_root voxceleb1/wav \\
      --output_dir eval
  speaker-encoder evaluate --model ecapa --model tuned=runs/mine/model --data_root my_corpus
  speaker-encoder evaluate --model ecapa --trials trials.txt --data_root corpus \\
      --norm as --cohort train_corpus --calibration_trials dev_trials.txt --quality
  speaker-encoder evaluate --scores eval/scores.txt
Trial lists have lines `label path1 path2`, Kaldi's `utterance1 utterance2 target`, or `path1 path2`
(scores only). Without --trials, trials are made of the corpus.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from speaker_encoder.errors import EXIT_DONE, EXIT_PARTLY, UserError

if TYPE_CHECKING:
    from speaker_encoder.verification.evaluation_options import EvaluationOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `evaluate`."""
    what = parser.add_argument_group("what is measured", "each may be named: NAME=PATH_OR_ID")
    what.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="PATH_OR_ID",
        help="a name such as ecapa (docs/encoders.md has all), Hub id, model folder, run or "
        "checkpoint; may be repeated",
    )
    what.add_argument(
        "--embeddings",
        action="append",
        default=[],
        metavar="PATH",
        help="embeddings that `embed` wrote, in any format, in place of a model",
    )
    what.add_argument(
        "--scores", action="append", default=[], metavar="FILE", help="a scores.txt, by itself"
    )
    what.add_argument(
        "--compare",
        nargs="*",
        metavar="MODEL",
        help="compare two models on the same trials; several --model do that too",
    )
    _add_trial_arguments(parser.add_argument_group("trials"))
    _add_score_arguments(parser.add_argument_group("scores"))
    _add_figure_arguments(parser.add_argument_group("figures"))
    _add_machine_arguments(parser.add_argument_group("machine"))


def _add_trial_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--trials", metavar="FILE", help="the trial list")
    group.add_argument(
        "--data_root",
        metavar="DIR",
        help="what its paths are relative to; alone: the corpus to make trials of",
    )
    group.add_argument(
        "--speaker_table", metavar="FILE", help="columns speaker and sex, or path, speaker, session"
    )
    group.add_argument("--hard", action="store_true", help="made nontarget trials are of one sex")
    group.add_argument(
        "--max_trials",
        type=int,
        default=200_000,
        metavar="N",
        help="most trials to make (default: 200000)",
    )
    group.add_argument("--seed", type=int, default=0, help="of made trials and draws (default: 0)")


def _add_score_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--protocol", default="full", help="full (default), crops:N:SECONDS, windows:SECONDS:HOP"
    )
    group.add_argument("--score", default="cosine", help="cosine (default) or l2")
    group.add_argument("--norm", help="z, t, s, or as (adaptive s-norm)")
    group.add_argument(
        "--cohort",
        metavar="PATH",
        help="corpus or list (`speaker path`) for --norm; an export for --embeddings",
    )
    group.add_argument(
        "--cohort_by",
        default="utterances",
        help="utterances (default) or speakers (their mean embeddings)",
    )
    group.add_argument("--top_k", type=int, default=300, help="of --norm as (default: 300)")
    group.add_argument(
        "--calibration_trials",
        metavar="FILE",
        help="labelled trials, none of them among the test trials",
    )
    group.add_argument("--calibration_root", metavar="DIR", help="default: --data_root")
    group.add_argument(
        "--quality", action="store_true", help="calibrate with duration and embedding norm too"
    )


def _add_figure_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--p_target",
        type=float,
        action="append",
        metavar="P",
        help="prior of a target trial, for the costs; default: 0.01 and 0.05",
    )
    group.add_argument(
        "--false_accept_rate",
        type=float,
        action="append",
        metavar="RATE",
        help="give the threshold for it; default: 0.01",
    )
    group.add_argument(
        "--num_bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="draws of speakers for the intervals; 0: none (default: 1000)",
    )
    group.add_argument(
        "--output_dir",
        metavar="DIR",
        help="results.json, scores.txt, DET plot, histogram and report.html",
    )


def _add_machine_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model_device", default="best", help="cpu, cuda, cuda:<number>, best (default)"
    )
    group.add_argument("--batch_size", type=int, default=16, help="default: 16")
    group.add_argument(
        "--no_cache", action="store_true", help="keep no embeddings in the user's cache folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluates; gives the exit code."""
    from pathlib import Path

    from speaker_encoder.export.files import check_writable
    from speaker_encoder.training.logs import log_to_terminal
    from speaker_encoder.verification.result_table import format_results
    from speaker_encoder.verification.results import measure, write_outputs
    from speaker_encoder.verification.scoring_run import run_evaluation

    log_to_terminal()
    options = _options_of(arguments)
    options.check()
    folder = None if arguments.output_dir is None else Path(arguments.output_dir).expanduser()
    if folder is not None:
        check_writable(folder, "the output folder")
    evaluation = run_evaluation(options)
    results = measure(evaluation)
    print(format_results(results), flush=True)
    if folder is not None:
        write_outputs(evaluation, results, folder)
        print(f"\nreport  {folder / 'report.html'}\nresults {folder / 'results.json'}")
    return EXIT_PARTLY if evaluation.data.unreadable else EXIT_DONE


def _options_of(arguments: argparse.Namespace) -> EvaluationOptions:
    """The arguments as options, checked as far as that needs no data."""
    from speaker_encoder.verification.evaluation_options import EvaluationOptions

    compared = arguments.compare or []
    options = EvaluationOptions(
        models=(*arguments.model, *compared),
        embeddings=tuple(arguments.embeddings),
        scores=tuple(arguments.scores),
        trials=arguments.trials,
        data_root=arguments.data_root,
        speaker_table=arguments.speaker_table,
        is_hard=arguments.hard,
        max_trials=arguments.max_trials,
        seed=arguments.seed,
        protocol=arguments.protocol,
        score=arguments.score,
        p_targets=tuple(dict.fromkeys(arguments.p_target or (0.01, 0.05))),
        false_accept_rates=tuple(dict.fromkeys(arguments.false_accept_rate or (0.01,))),
        norm=arguments.norm,
        cohort=arguments.cohort,
        cohort_by=arguments.cohort_by,
        top_k=arguments.top_k,
        calibration_trials=arguments.calibration_trials,
        calibration_root=arguments.calibration_root,
        use_quality=arguments.quality,
        model_device=arguments.model_device,
        batch_size=arguments.batch_size,
        num_bootstrap=arguments.num_bootstrap,
        use_cache=not arguments.no_cache,
    )
    num_systems = len(options.models) + len(options.embeddings) + len(options.scores)
    if arguments.compare is not None and num_systems < 2:
        raise UserError(
            f"--compare needs two models (or --embeddings, --scores), found {num_systems}."
        )
    return options
