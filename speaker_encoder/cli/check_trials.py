"""Checks a trial list: missing files, duplicates, self-trials, speakers of the training list.

example:
  speaker-encoder check-trials --trials trials.txt --data_root corpus
  speaker-encoder check-trials --trials trials.txt --data_root corpus --train_list train_list.txt
Ends with exit code 0 when nothing was found, else with 2.
"""

from __future__ import annotations

import argparse

from speaker_encoder.errors import EXIT_DONE, EXIT_USER, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `check-trials`."""
    parser.add_argument("--trials", required=True, metavar="FILE", help="the trial list")
    parser.add_argument(
        "--data_root", metavar="DIR", help="what its paths are relative to; default: its folder"
    )
    parser.add_argument(
        "--train_list",
        metavar="PATH",
        help="a list with lines `speaker path`, or the folder of the training corpus",
    )
    parser.add_argument(
        "--train_root",
        metavar="DIR",
        help="what the paths of the training list are relative to; default: --data_root, or its "
        "own folder",
    )
    parser.add_argument(
        "--speaker_table", metavar="FILE", help="who speaks in the trials: path, speaker"
    )
    parser.add_argument("--report", metavar="FILE", help="write every finding as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Checks; gives the exit code."""
    import json
    from pathlib import Path

    from speaker_encoder.export.files import check_writable, write_bytes_atomically
    from speaker_encoder.verification.speaker_table import read_speaker_table
    from speaker_encoder.verification.trial_check import check_trials

    if arguments.report is not None:
        arguments.report = str(Path(arguments.report).expanduser())
        if Path(arguments.report).is_dir():
            raise UserError(f"--report {arguments.report} is a folder; name a file.")
        check_writable(Path(arguments.report).absolute().parent, "the report's folder")
    table = read_speaker_table(arguments.speaker_table) if arguments.speaker_table else None
    check = check_trials(
        arguments.trials,
        arguments.data_root,
        training=arguments.train_list,
        training_root=arguments.train_root,
        speaker_table=table,
    )
    print(check, flush=True)
    if arguments.report is not None:
        text = json.dumps(check.as_dict(), indent=2, ensure_ascii=False) + "\n"
        write_bytes_atomically(Path(arguments.report), text.encode("utf-8", "surrogateescape"))
    return EXIT_DONE if check.is_clean else EXIT_USER
