"""The steps from archives to a corpus: download, check, unpack, convert, split, list."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from speaker_encoder.audio import AUDIO_EXTENSIONS
from speaker_encoder.corpora.kaldi import read_kaldi_folder, write_kaldi_folder, write_lines
from speaker_encoder.corpora.prepare.archives import (
    Archive,
    check_sums,
    group_parts,
    unpack,
)
from speaker_encoder.corpora.prepare.audio_files import Cut, conversions, pieces, write_cuts
from speaker_encoder.corpora.prepare.download import download
from speaker_encoder.corpora.prepare.published import CORPORA, PublishedCorpus, known_archives
from speaker_encoder.corpora.records import Corpus
from speaker_encoder.corpora.scan import scan
from speaker_encoder.errors import UserError

KALDI = "kaldi"
ON_DISK = "folders"
NAMES = (*CORPORA, KALDI, ON_DISK)
_STATE_FOLDER = ".prepare"
_COMPRESSED = (".m4a", ".mp4", ".aac", ".mp3", ".ogg", ".opus", ".webm")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What is prepared, and how.

    Attributes:
        corpus: a name of `NAMES`.
        output_dir: the folder that becomes the corpus.
        archives: the archives, or folders that they lie in; of `kaldi` the data folder, of
            `folders` the corpus.
        download: addresses, or names of archives whose address is known.
        user: name for servers that ask for one.
        check: whether published sums are compared.
        convert_to: "flac", "wav" or "none"; None: what is usual for the corpus.
        remove_originals: delete what was converted.
        sampling_rate: of converted recordings, Hz.
        split_seconds: length of the pieces of noises; 0: they are not split.
        split_hop: seconds from piece to piece.
        kaldi_dir: a Kaldi data folder is written there too.
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
    num_workers: int = 2


@dataclass
class Prepared:
    """What was made.

    Attributes:
        lists: the lists that were written, each with its number of lines.
        failures: recording -> why it could not be converted or cut.
        unchecked: archives for which no sum is published.
        corpus: what a scan found; None where there are no speakers.
    """

    lists: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    corpus: Corpus | None = None


def prepare(
    options: PrepareOptions, progress: Progress = lambda what, done, total: None
) -> Prepared:
    """Makes a corpus of archives; what an earlier, killed run has done is not done again.

    Args:
        options: what is prepared.
        progress: is told (what, done, in all).

    Returns:
        What was made.

    Raises:
        UserError: an archive is missing, damaged or dangerous, or there is nothing to prepare.
    """
    result = Prepared()
    output = options.output_dir
    if options.corpus == KALDI:
        _cut_segments(options, result, progress)
        _list_speakers(options, "folders", result)
    elif options.corpus == ON_DISK:
        root = _only_folder(options, "the folder of a corpus")
        _list_speakers(options, "auto", result, root)
    else:
        published = CORPORA[options.corpus]
        for archive in _archives(options, published, progress):
            _unpack(archive, options, published, result, progress)
        _convert(options, published, result, progress)
        if published.layout is not None:
            _list_speakers(options, published.layout, result)
        else:
            _list_noises(options, published, result, progress)
    if not result.lists:
        raise UserError(f"No recordings were found in {output}.")
    return result


def _only_folder(options: PrepareOptions, what: str) -> Path:
    if len(options.archives) != 1 or not options.archives[0].is_dir():
        raise UserError(f"prepare {options.corpus} wants --archives with {what}.")
    return options.archives[0]


def _archives(
    options: PrepareOptions, published: PublishedCorpus, progress: Progress
) -> list[Archive]:
    """Finds the archives, downloading first what is to be downloaded; none: all are unpacked.

    Raises:
        UserError: there is none, or not the whole of one.
    """
    known = known_archives(options.corpus)
    paths: list[Path] = []
    for wanted in options.download:
        address = wanted if "://" in wanted else _known_address(options.corpus, wanted)
        folder = options.output_dir / "archives"
        paths.append(download(address, folder, options.user, progress))
    for given in options.archives:
        if given.is_dir():
            paths += [path for path in sorted(given.iterdir()) if _fits(path, published)]
        elif given.is_file():
            paths.append(given)
        else:
            raise UserError(f"--archives: {given} is not there.")
    unique = list({path.resolve(): path for path in paths}.values())
    if not unique and not (options.output_dir / _STATE_FOLDER).is_dir():
        asked = ", ".join(str(path) for path in options.archives) or "nowhere"
        raise UserError(
            f"No archive of {options.corpus} was found (looked in: {asked}; for: "
            f"{', '.join(published.archives)}). Give --archives FOLDER, or --download ADDRESS"
            + (f" or a name of: {', '.join(_downloadable(options.corpus))}." * bool(known))
        )
    return group_parts(unique, known)


def _fits(path: Path, published: PublishedCorpus) -> bool:
    return path.is_file() and any(fnmatch(path.name, pattern) for pattern in published.archives)


def _downloadable(corpus: str) -> list[str]:
    return [name for name, archive in known_archives(corpus).items() if archive.address]


def _known_address(corpus: str, name: str) -> str:
    """Gives the address of an archive by its name, with or without its ending.

    Raises:
        UserError: no address is known.
    """
    for known_name, archive in known_archives(corpus).items():
        if archive.address and name in (known_name, known_name.partition(".tar")[0]):
            return archive.address
    names = ", ".join(_downloadable(corpus)) or "none: give addresses (ask for them at its page)"
    raise UserError(f"--download: no address of {name!r} is known. Known for {corpus}: {names}.")


def _unpack(
    archive: Archive,
    options: PrepareOptions,
    published: PublishedCorpus,
    result: Prepared,
    progress: Progress,
) -> None:
    state = options.output_dir / _STATE_FOLDER / f"{archive.name}.json"
    if state.is_file() and json.loads(state.read_text("utf-8")) == archive.fingerprint:
        return
    known = known_archives(options.corpus)
    if options.check and not check_sums(archive, known, progress):
        result.unchecked.append(archive.name)
    inside = next((f for start, f in published.folders if archive.name.startswith(start)), "")
    unpack(archive, options.output_dir / inside, published.leave_out, progress)
    write_lines(state, [json.dumps(archive.fingerprint)])


def _recordings(root: Path, suffixes: Sequence[str] | frozenset[str]) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in sorted(names)
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")
        ]
    return found


def _convert(
    options: PrepareOptions, published: PublishedCorpus, result: Prepared, progress: Progress
) -> None:
    kind = options.convert_to or published.convert_to or "none"
    if kind == "none":
        return
    cuts = conversions(_recordings(options.output_dir, _COMPRESSED), f".{kind}")
    failures = write_cuts(
        cuts,
        options.sampling_rate,
        options.num_workers,
        lambda done, total: progress(f"converting to {kind}", done, total),
    )
    result.failures |= {str(path): reason for path, reason in failures.items()}
    if options.remove_originals:
        for cut in cuts:
            if cut.target.is_file():
                cut.source.unlink()


def _cut_segments(options: PrepareOptions, result: Prepared, progress: Progress) -> None:
    """Writes each utterance of a Kaldi data folder as `<speaker>/<utterance>.flac`."""
    cuts = []
    for utterance in read_kaldi_folder(_only_folder(options, "a Kaldi data folder")):
        if utterance.path is None:
            result.failures[utterance.utterance_id] = utterance.problem or "no recording"
            continue
        for name in (utterance.speaker_id, utterance.utterance_id):
            if "/" in name or "\\" in name or name.startswith("."):
                raise UserError(f"The Kaldi name {name!r} cannot be a file's name.")
        target = options.output_dir / utterance.speaker_id / f"{utterance.utterance_id}.flac"
        if utterance.start is None or utterance.end is None:
            cuts.append(Cut(Path(utterance.path), target))
        else:
            length = utterance.end - utterance.start
            cuts.append(Cut(Path(utterance.path), target, utterance.start, length))
    failures = write_cuts(
        cuts, None, options.num_workers, lambda done, total: progress("cutting", done, total)
    )
    result.failures |= {str(path): reason for path, reason in failures.items()}


def _list_speakers(
    options: PrepareOptions, layout: str, result: Prepared, root: Path | None = None
) -> None:
    """Writes `lists/<corpus>.txt` with lines `speaker path`, and the Kaldi folder."""
    folder = root or options.output_dir
    corpus = scan(folder, layout, num_workers=options.num_workers)
    result.corpus = corpus
    lines = [
        f"{utterance.speaker_id} {os.path.relpath(utterance.path, folder)}"
        for utterance in corpus.utterances
    ]
    path = options.output_dir / "lists" / f"{options.corpus}.txt"
    write_lines(path, lines)
    result.lists[str(path)] = len(lines)
    if options.kaldi_dir is not None:
        count = write_kaldi_folder(corpus.utterances, options.kaldi_dir)
        result.lists[str(options.kaldi_dir / "wav.scp")] = count


def _list_noises(
    options: PrepareOptions, published: PublishedCorpus, result: Prepared, progress: Progress
) -> None:
    """Writes a list of paths for each kind of noise, splitting long ones first."""
    output, root = options.output_dir, options.output_dir
    found = _recordings(root, AUDIO_EXTENSIONS)
    found = [path for path in found if path.relative_to(root).parts[0] not in ("split", "archives")]
    if published.split and options.split_seconds > 0:
        target = output / "split"
        cuts, unreadable = pieces(found, root, target, options.split_seconds, options.split_hop)
        unreadable |= write_cuts(
            cuts,
            options.sampling_rate,
            options.num_workers,
            lambda done, total: progress("splitting", done, total),
        )
        result.failures |= {str(path): reason for path, reason in unreadable.items()}
        found, root = [cut.target for cut in cuts if cut.target.is_file()], target
    groups: dict[str, list[str]] = {}
    for path in found:
        parts = path.relative_to(root).parts
        kind = parts[1] if len(parts) > 2 else parts[0]
        groups.setdefault(f"{options.corpus}_{kind}", []).append(str(path.relative_to(output)))
    for name, paths in sorted(groups.items()):
        write_lines(output / "lists" / f"{name}.txt", sorted(paths))
        result.lists[str(output / "lists" / f"{name}.txt")] = len(paths)
