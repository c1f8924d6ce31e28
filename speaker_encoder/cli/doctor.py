"""Finds what ruins a training before it begins, and writes a report that plays the files.

Without a model: broken files, mixed sampling rates and channels, clipping, silence, odd lengths and
levels, exact and near duplicates. With a model also: utterances that likely belong to another
speaker, and speakers that are likely one person. With --eval_root: what is also in the evaluation
data. Nothing is changed or deleted; all output goes into --output_dir.

examples:
  speaker-encoder doctor --data_root corpus
  speaker-encoder doctor --data_root corpus --model ecapa --eval_root val --write_list

The exit code is 0 whether something was found or not, and 2 where an argument or the corpus as a
whole must be changed. A file that cannot be read is a finding.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_encoder.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from speaker_encoder.doctor import Diagnosis
    from speaker_encoder.modeling import SpeakerEncoder

REPORT_NAME, PAGE_NAME, LIST_NAME = "report.json", "report.html", "keep.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `doctor`."""
    parser.add_argument(
        "--data_root", required=True, metavar="DIR", help="the corpus, or a list file"
    )
    parser.add_argument(
        "--layout", default="auto",
        help="how it lies on disk: vctk, libritts, librispeech, voxceleb, cmu_arctic, folders, "
        "sessions, list, or auto (default)",
    )  # fmt: skip
    parser.add_argument("--list", dest="list_path", metavar="FILE",
                        help="lines `speaker path`, the paths below --data_root")  # fmt: skip
    parser.add_argument("--multi_rec_session", action="store_true",
                        help="an unknown layout is speaker/session/file")  # fmt: skip
    parser.add_argument(
        "--model",
        help="compare voices with it: a name such as ecapa (docs/encoders.md has all), a Hub id, a "
        "model folder, a run directory, a checkpoint",
    )
    parser.add_argument(
        "--model_device", default="best", help="cpu, cuda, cuda:<number>, best (default)"
    )
    parser.add_argument("--batch_size", type=int, default=16, metavar="N",
                        help="utterances embedded at once (16)")  # fmt: skip
    parser.add_argument("--num_workers", type=int, metavar="N", help="threads that decode")
    parser.add_argument("--eval_root", metavar="DIR",
                        help="evaluation data, which must have other speakers")  # fmt: skip
    parser.add_argument("--eval_list", metavar="FILE",
                        help="lines `speaker path`, the paths below --eval_root")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of random halves of speakers (0)")
    _add_output_arguments(parser)


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output_dir", default="doctor", metavar="DIR",
        help=f"gets {REPORT_NAME} and {PAGE_NAME} (default: doctor)",
    )  # fmt: skip
    parser.add_argument(
        "--write_list", nargs="?", const=LIST_NAME, metavar="NAME",
        help=f"write what to keep there too, as lines `speaker path` (default: {LIST_NAME}); "
        "train reads it with train_list",
    )  # fmt: skip
    parser.add_argument(
        "--leave_out", action="append", default=[], metavar="KIND",
        help="leave files of this kind of finding out of the list too; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--keep", action="append", default=[], metavar="KIND",
        help="keep files of this kind of finding; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--join_same_persons", action="store_true",
        help="in the list, give two speakers that are likely one person one name",
    )  # fmt: skip
    parser.add_argument("--max_shown", type=int, default=3, metavar="N",
                        help="findings of a kind in the terminal (3)")  # fmt: skip
    parser.add_argument(
        "--embed_megabytes", type=float, default=20.0, metavar="MB",
        help="of audio inside the page; the rest is played from where it lies (20)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Examines; gives the exit code."""
    from speaker_encoder.corpora import scan
    from speaker_encoder.doctor import examine
    from speaker_encoder.doctor.keep_list import choose_kinds
    from speaker_encoder.training.logs import log_to_terminal

    log_to_terminal()
    _check_numbers(arguments)
    kinds = choose_kinds(arguments.leave_out, arguments.keep)
    if arguments.eval_list and not arguments.eval_root:
        raise UserError("--eval_list needs --eval_root, the folder that its paths are below.")
    folder = _output_folder(arguments)
    data = scan(
        arguments.data_root, arguments.layout, list_path=arguments.list_path,
        multi_rec_session=arguments.multi_rec_session,
    )  # fmt: skip
    evaluation = None
    if arguments.eval_root:
        evaluation = scan(
            arguments.eval_root, list_path=arguments.eval_list,
            multi_rec_session=arguments.multi_rec_session,
        )  # fmt: skip
    encoder = _load(arguments) if arguments.model else None
    diagnosis = examine(
        data, encoder, evaluation=evaluation, model_name=arguments.model,
        batch_size=arguments.batch_size, num_workers=arguments.num_workers, seed=arguments.seed,
    )  # fmt: skip
    _write(diagnosis, folder, kinds, arguments)
    return EXIT_DONE


def _check_numbers(arguments: argparse.Namespace) -> None:
    """Checks what argparse does not.

    Raises:
        UserError: a number is too small.
    """
    for name, least in (("batch_size", 1), ("num_workers", 1), ("max_shown", 0), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name} must be at least {least}, found {value}.")
    if not arguments.embed_megabytes >= 0:
        raise UserError(f"--embed_megabytes must be at least 0, found {arguments.embed_megabytes}.")


def _output_folder(arguments: argparse.Namespace) -> Path:
    """The folder of the output, which is made if need be.

    Raises:
        UserError: it cannot be written, or the list's name would leave it or replace a report.
    """
    from speaker_encoder.export.files import check_writable

    name = arguments.write_list
    if name is not None and (Path(name).name != name or name in (REPORT_NAME, PAGE_NAME)):
        raise UserError(
            f"--write_list {name!r} must be the name of a file of its own in --output_dir "
            f"{arguments.output_dir}, without a folder: {LIST_NAME}."
        )
    folder = Path(arguments.output_dir).expanduser()
    check_writable(folder, "the output folder")
    return folder


def _load(arguments: argparse.Namespace) -> SpeakerEncoder:
    from typing import Any

    from speaker_encoder.export.model import choose_device
    from speaker_encoder.verification.systems import load_any_encoder

    device = choose_device(arguments.model_device)
    encoder: Any = load_any_encoder(arguments.model)
    loaded: SpeakerEncoder = encoder.to(device)
    return loaded


def _write(
    diagnosis: Diagnosis, folder: Path, kinds: set[str], arguments: argparse.Namespace
) -> None:
    """Writes the reports and the list, and prints what matters."""
    from speaker_encoder.doctor.html_report import write_html
    from speaker_encoder.doctor.keep_list import make_keep_list, write_keep_list
    from speaker_encoder.doctor.report import as_text, write_json

    print(as_text(diagnosis, arguments.max_shown))
    write_json(diagnosis, folder / REPORT_NAME)
    write_html(diagnosis, folder / PAGE_NAME, arguments.embed_megabytes)
    print(f"report: {folder / PAGE_NAME}, {folder / REPORT_NAME}")
    if arguments.write_list is None:
        return
    kept = make_keep_list(diagnosis, kinds, arguments.join_same_persons)
    write_keep_list(kept, folder / arguments.write_list)
    for path in kept.unlisted:
        print(f"not listed, since a line cannot hold its name: {path!r}")
    print(
        f"kept {len(kept.lines)} of {len(diagnosis.data.utterances)} recordings, "
        f"{kept.num_speakers} speakers: {folder / arguments.write_list}"
    )
