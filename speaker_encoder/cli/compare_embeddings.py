"""Compares two exports of the same corpus: before and after fine-tuning, mapped and not, ...

A and B are what `speaker-encoder embed` wrote, in any format: its output folder, the corpus with
embeddings beside its audio, or one of its files. Utterances are matched by their ids. "Rotated B"
is B turned as a whole to lie on A, by a rotation that was fitted on the other half of the speakers:
where it is much more like A than B is, A and B say the same with other axes.

example:
  speaker-encoder embed --model_name dvector --dataset_dir corpus --output_dir old
  speaker-encoder embed --model_name dvector --dataset_dir corpus --checkpoint runs/mine \\
      --output_dir new
  speaker-encoder compare-embeddings old new --report comparison.json
Where a folder holds the embeddings of several models, write FOLDER:MODEL.
"""

from __future__ import annotations

import argparse

from speaker_encoder.errors import EXIT_DONE, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `compare-embeddings`."""
    parser.add_argument("first", metavar="A", help="embeddings that `speaker-encoder embed` wrote")
    parser.add_argument("second", metavar="B", help="others of the same corpus")
    parser.add_argument("--report", metavar="FILE", help="write every figure as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Compares; gives the exit code."""
    import json
    from dataclasses import asdict
    from pathlib import Path

    from speaker_encoder.export.files import check_writable, write_bytes_atomically
    from speaker_encoder.verification.comparison_table import format_comparison
    from speaker_encoder.verification.embedding_comparison import compare_embeddings
    from speaker_encoder.verification.sources import read_embeddings

    report = None if arguments.report is None else Path(arguments.report).expanduser().absolute()
    if report is not None:
        if report.is_dir():
            raise UserError(f"--report {arguments.report} is a folder; name a file.")
        check_writable(report.parent, "the report's folder")
    places = (arguments.first, arguments.second)
    found = compare_embeddings(*(read_embeddings(place) for place in places))
    print(format_comparison(found, places), flush=True)
    if report is not None:
        content = {"A": places[0], "B": places[1], **asdict(found)}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_bytes_atomically(report, text.encode("utf-8", "surrogateescape"))
    return EXIT_DONE
