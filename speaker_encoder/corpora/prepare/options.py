"""What is to be prepared, and what came out."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from speaker_encoder.corpora.prepare.published import CORPORA
from speaker_encoder.corpora.records import Corpus
from speaker_encoder.errors import UserError

KALDI = "kaldi"
ON_DISK = "folders"
NAMES = (*CORPORA, KALDI, ON_DISK)

Progress = Callable[[str, int, int], None]
"""(what, done, in all)."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What is prepared, and how.

    Attributes:
        corpus: a name of `NAMES`.
        output_dir: the folder that becomes the corpus.
        archives: the archives, or folders that they lie in; of `kaldi` the data folder, of
            `folders` the corpus, which may be a pattern of shards.
        download: addresses, or names of archives whose address is known.
        user: name for servers that ask for one.
        check: whether published sums are compared.
        convert_to: "flac", "wav" or "none"; None: what is usual for the corpus.
        remove_originals: delete what was converted.
        sampling_rate: of converted and split recordings, Hz.
        split_seconds: length of the pieces of noises; 0: they are not split.
        split_hop: seconds from piece to piece.
        kaldi_dir: a Kaldi data folder is written there too.
        shards_dir: tar shards of the corpus are written there too.
        shard_megabytes: of a shard, about.
        num_workers: recordings converted at a time.
    """

    corpus: str
    output_dir: Path
    archives: Sequence[Path] = ()
    download: Sequence[str] = ()
    user: str | None = None
    check: bool = True
    convert_to: str | None = None
    remove_originals: bool = False
    sampling_rate: int = 16000
    split_seconds: float = 5.0
    split_hop: float = 3.0
    kaldi_dir: Path | None = None
    shards_dir: Path | None = None
    shard_megabytes: float = 1000.0
    num_workers: int = 2

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UserError: one cannot be.
        """
        if self.corpus not in NAMES:
            nearest = difflib.get_close_matches(self.corpus, NAMES, n=1, cutoff=0)[0]
            raise UserError(
                f"No corpus {self.corpus!r} can be prepared. Known: {', '.join(NAMES)}; nearest: "
                f"{nearest!r}."
            )
        names = {"shard_megabytes": "shard_size"}
        for name in ("sampling_rate", "num_workers", "split_hop", "shard_megabytes"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"--{names.get(name, name)} must be above 0, found {value}.")
        if not 0 <= self.split_seconds < math.inf:
            raise UserError(f"--split_seconds must be 0 or more, found {self.split_seconds}.")


@dataclass
class Prepared:
    """What was made.

    Attributes:
        lists: the lists that were written, each with its number of lines.
        shards: tars that were written, or were there.
        failures: recording -> why it could not be converted, cut or listed.
        unchecked: archives for which no sum is published.
        links: archive -> number of links in it, which were not unpacked.
        corpus: what a scan found; None where there are no speakers.
    """

    lists: dict[str, int] = field(default_factory=dict)
    shards: list[Path] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    links: dict[str, int] = field(default_factory=dict)
    corpus: Corpus | None = None
