"""Makes a corpus of the archives that you downloaded, ready for training.

Checks published sums, unpacks, converts compressed recordings, splits long noises, and writes
lists. Killed, the same command goes on where it was.

example:
  speaker-encoder prepare voxceleb --archives ~/Downloads --output_dir corpora/voxceleb
  speaker-encoder prepare librispeech --download train-clean-100 --output_dir corpora/librispeech
  speaker-encoder prepare musan --archives musan.tar.gz --output_dir corpora/musan
  speaker-encoder prepare kaldi --archives data/train --output_dir corpora/train
  speaker-encoder prepare folders --archives mine --output_dir mine --kaldi data/mine
  speaker-encoder prepare folders --archives mine --output_dir mine --shards shards/mine
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_encoder.errors import EXIT_DONE, EXIT_PARTLY

if TYPE_CHECKING:
    from speaker_encoder.corpora.prepare import Prepared

_FAILURES_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `prepare`."""
    from speaker_encoder.corpora.prepare.options import NAMES

    parser.add_argument(
        "corpus",
        choices=NAMES,
        help="which corpus; kaldi: a Kaldi data folder, whose segments are cut into files; "
        "folders: a corpus that lies on disk already",
    )
    parser.add_argument("--output_dir", required=True, type=Path, metavar="DIR", help="the corpus")
    parser.add_argument(
        "--archives",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="the archives, or folders that they lie in; of kaldi and folders the folder "
        "itself, or shards ('quoted/*.tar')",
    )
    parser.add_argument(
        "--download",
        nargs="+",
        default=[],
        metavar="ADDRESS",
        help="addresses of archives, or names such as train-clean-100 where the address is known",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="for servers that ask for a name; the password: SPEAKER_ENCODER_PASSWORD",
    )
    parser.add_argument("--no_check", action="store_true", help="do not compare published sums")
    parser.add_argument(
        "--convert",
        choices=("flac", "wav", "none"),
        help="what m4a, mp3 and the like become; default: flac for voxceleb, else none",
    )
    parser.add_argument("--remove_originals", action="store_true", help="delete what was converted")
    parser.add_argument(
        "--sampling_rate",
        type=int,
        default=16000,
        metavar="HZ",
        help="of what is converted or split",
    )
    parser.add_argument(
        "--split_seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="length of the pieces that musan is split into; 0: not split (default: 5)",
    )
    parser.add_argument(
        "--split_hop", type=float, default=3.0, metavar="S", help="from piece to piece (default: 3)"
    )
    parser.add_argument("--kaldi", type=Path, metavar="DIR", help="write a Kaldi data folder too")
    parser.add_argument(
        "--shards", type=Path, metavar="DIR", help="write tar shards too, of all recordings, mixed"
    )
    parser.add_argument(
        "--shard_size", type=float, default=1000.0, metavar="MB", help="of a shard (default: 1000)"
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="recordings at a time (default: as many as processors)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepares; gives the exit code."""
    from speaker_encoder.corpora.prepare import PrepareOptions, prepare
    from speaker_encoder.export.files import check_writable, explained_full_disk

    options = PrepareOptions(
        corpus=arguments.corpus,
        output_dir=arguments.output_dir.expanduser(),
        archives=[path.expanduser() for path in arguments.archives],
        download=arguments.download,
        user=arguments.user,
        check=not arguments.no_check,
        convert_to=arguments.convert,
        remove_originals=arguments.remove_originals,
        sampling_rate=arguments.sampling_rate,
        split_seconds=arguments.split_seconds,
        split_hop=arguments.split_hop,
        kaldi_dir=arguments.kaldi and arguments.kaldi.expanduser(),
        shards_dir=arguments.shards and arguments.shards.expanduser(),
        shard_megabytes=arguments.shard_size,
        num_workers=arguments.num_workers,
    )
    check_writable(options.output_dir.absolute(), "the output folder")
    bars = _Bars()
    try:
        with explained_full_disk():
            prepared = prepare(options, bars)
    finally:
        bars.close()
    _report(prepared)
    return EXIT_PARTLY if prepared.failures else EXIT_DONE


class _Bars:
    """One progress bar after the other, on a terminal only."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._new = tqdm
        self._bar: tqdm | None = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or what != self._what:
            self.close()
            is_bytes = not what.startswith(("converting", "splitting", "cutting", "writing"))
            self._bar = self._new(
                total=total, desc=what, unit="B" if is_bytes else " files", unit_scale=is_bytes,
                disable=not sys.stderr.isatty(), leave=False,
            )  # fmt: skip
            self._what = what
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _report(prepared: Prepared) -> None:
    for name in prepared.unchecked:
        print(f"no sum is published for (all of) {name}: not checked", file=sys.stderr)
    for name, count in prepared.links.items():
        print(f"{name}: {count} links and the like in it were not unpacked", file=sys.stderr)
    if prepared.corpus is not None:
        print(prepared.corpus.summary())
    for path, count in prepared.lists.items():
        print(f"{path}: {count} lines")
    if prepared.shards:
        print(f"{prepared.shards[0].parent}: {len(prepared.shards)} shards")
    for path, reason in list(prepared.failures.items())[:_FAILURES_SHOWN]:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    if len(prepared.failures) > _FAILURES_SHOWN:
        print(f"and {len(prepared.failures) - _FAILURES_SHOWN} more", file=sys.stderr)
