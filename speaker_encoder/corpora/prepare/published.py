"""The published corpora that can be prepared, and what is known of their archives."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class PublishedCorpus:
    """A corpus that people download as archives.

    Attributes:
        layout: how its recordings lie once they are unpacked, a name of `corpora.LAYOUTS`; None:
            it is no speech, and has no speakers.
        archives: names of its archives, as patterns; a part of a split archive matches too.
        folders: start of an archive's name -> the folder that it is unpacked into.
        leave_out: folders inside an archive whose names are dropped from the paths.
        convert_to: what its compressed recordings are converted to by default; None: nothing.
        split: whether its recordings are noises that are long enough to be split.
    """

    layout: str | None
    archives: tuple[str, ...]
    folders: tuple[tuple[str, str], ...] = ()
    leave_out: tuple[str, ...] = ()
    convert_to: str | None = None
    split: bool = False


CORPORA: dict[str, PublishedCorpus] = {
    "voxceleb": PublishedCorpus(
        "voxceleb",
        ("vox?_*_part??", "vox?_*.zip"),
        folders=(("vox1_", "voxceleb1"), ("vox2_", "voxceleb2")),
        leave_out=("dev",),
        convert_to="flac",
    ),
    "vctk": PublishedCorpus("vctk", ("VCTK-Corpus*.zip", "DS_10283_*.zip", "VCTK-Corpus*.tar.gz")),
    "librispeech": PublishedCorpus(
        "librispeech", ("train-*.tar.gz", "dev-*.tar.gz", "test-*.tar.gz")
    ),
    "libritts": PublishedCorpus(
        "libritts", ("train-*.tar.gz", "train_*.tar.gz", "dev*.tar.gz", "test*.tar.gz")
    ),
    "cmu_arctic": PublishedCorpus("cmu_arctic", ("cmu_us_*_arctic*.tar.bz2",)),
    "musan": PublishedCorpus(None, ("musan*.tar.gz",), split=True),
    "rirs": PublishedCorpus(None, ("rirs_noises*.zip",)),
}
"""Name of the command line -> corpus."""


@dataclass(frozen=True)
class KnownArchive:
    """An archive whose sum is published: `algorithm` is a name of hashlib, `address` may be ""."""

    name: str
    algorithm: str
    digest: str
    address: str


@cache
def known_archives(corpus: str) -> dict[str, KnownArchive]:
    """The archives of a corpus with published sums, by file name.

    Source: the sums of LibriSpeech, LibriTTS, VCTK and CMU Arctic are those of
    ``torchaudio.datasets``, of VoxCeleb, MUSAN and the impulse responses those of
    ``clovaai/voxceleb_trainer``.
    """
    table = files("speaker_encoder.corpora.prepare").joinpath("archives.tsv").read_text("ascii")
    known = {}
    for row in csv.DictReader(table.splitlines(), delimiter="\t"):
        if row["corpus"] == corpus:
            algorithm, _, digest = row["sum"].partition(":")
            known[row["file"]] = KnownArchive(row["file"], algorithm, digest, row["address"])
    return known
