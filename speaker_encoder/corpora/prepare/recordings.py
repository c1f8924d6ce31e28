"""The steps that make recordings: conversion, splitting of noises, cutting of Kaldi segments."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from speaker_encoder.corpora.kaldi import KaldiUtterance
from speaker_encoder.corpora.prepare.audio_files import Cut, conversions, pieces, write_cuts
from speaker_encoder.corpora.prepare.options import Prepared, PrepareOptions, Progress
from speaker_encoder.corpora.prepare.published import PublishedCorpus
from speaker_encoder.corpora.prepare.written import MadeFiles
from speaker_encoder.errors import UserError

COMPRESSED = (".m4a", ".mp4", ".aac", ".mp3", ".ogg", ".opus", ".webm")
_FAILURES_SHOWN = 5


def find_recordings(root: Path, suffixes: Sequence[str] | frozenset[str]) -> list[Path]:
    """Gives the files with these endings below a folder, without hidden ones, in order."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in sorted(names)
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")
        ]
    return found


def convert(
    options: PrepareOptions, published: PublishedCorpus, result: Prepared, progress: Progress
) -> None:
    """Writes each compressed recording as FLAC or WAV beside it.

    Raises:
        UserError: it was converted otherwise before, and the originals are gone.
    """
    kind = options.convert_to or published.convert_to or "none"
    made = MadeFiles(options.output_dir, "converted")
    if kind == "none":
        made.remove_others(set(), of_gone_sources=False)
        return
    lost = [
        target
        for target, stamp in made.without_source()
        if (target.suffix, stamp[-1]) != (f".{kind}", options.sampling_rate)
    ]
    if lost:
        raise UserError(
            f"{len(lost)} recordings such as {lost[0]} were converted with other --convert or "
            f"--sampling_rate than {kind}, {options.sampling_rate} Hz, and their originals were "
            "removed. Give the same options as before, or another --output_dir."
        )
    roots = [options.output_dir / folder for _, folder in published.folders] or [options.output_dir]
    found = [path for root in roots for path in find_recordings(root, COMPRESSED)]
    cuts = [
        cut
        for cut in conversions(found, f".{kind}")
        if made.stamp_of(cut.target) is not None or not cut.target.exists()
    ]
    made.remove_others({cut.target for cut in cuts}, of_gone_sources=False)
    report = _reporter(progress, f"converting to {kind}")
    failures = write_cuts(cuts, made, options.sampling_rate, options.num_workers, report)
    result.failures |= {str(cut.source): reason for cut, reason in failures.items()}
    if options.remove_originals:
        for cut in cuts:
            if cut not in failures:
                cut.source.unlink()


def split_noises(
    found: Sequence[Path], options: PrepareOptions, result: Prepared, progress: Progress
) -> list[Path]:
    """Writes pieces of noises to `split/`; gives their paths."""
    root = options.output_dir
    target, seconds = root / "split", options.split_seconds
    cuts: list[Cut] = []
    if seconds > 0:
        cuts, unreadable = pieces(found, root, target, seconds, options.split_hop)
        result.failures |= {str(path): reason for path, reason in unreadable.items()}
    made = MadeFiles(root, "split")
    made.remove_others({cut.target for cut in cuts}, of_gone_sources=False)
    report = _reporter(progress, "splitting")
    failures = write_cuts(cuts, made, options.sampling_rate, options.num_workers, report)
    for cut, reason in failures.items():
        result.failures[f"{cut.source}, piece {cut.target.stem}"] = reason
    return [cut.target for cut in cuts if cut not in failures]


def cut_segments(
    utterances: Sequence[KaldiUtterance],
    options: PrepareOptions,
    result: Prepared,
    progress: Progress,
) -> list[tuple[str, Path]]:
    """Writes each utterance of a Kaldi data folder as `<speaker>/<utterance>.flac`.

    Returns:
        (speaker, path) of those that could be written.

    Raises:
        UserError: not one could be, or a name cannot be a file's name.
    """
    cuts: list[Cut] = []
    for utterance in utterances:
        if utterance.path is None:
            result.failures[utterance.utterance_id] = utterance.problem or "no recording"
            continue
        for name in (utterance.speaker_id, utterance.utterance_id):
            if "/" in name or "\\" in name or name.startswith("."):
                raise UserError(f"The Kaldi name {name!r} cannot be a file's name.")
        target = options.output_dir / utterance.speaker_id / f"{utterance.utterance_id}.flac"
        start = utterance.start or 0.0
        length = None if utterance.end is None else utterance.end - start
        cuts.append(Cut(Path(utterance.path), target, start, length))
    made = MadeFiles(options.output_dir, "cut")
    made.remove_others({cut.target for cut in cuts}, of_gone_sources=True)
    report = _reporter(progress, "cutting")
    failures = write_cuts(cuts, made, None, options.num_workers, report)
    for cut, reason in failures.items():
        result.failures[f"{cut.target.stem} ({cut.source})"] = reason
    written = [(cut.target.parent.name, cut.target) for cut in cuts if cut not in failures]
    if not written:
        raise UserError(f"No utterance could be cut.{first_failures(result)}")
    return written


def first_failures(result: Prepared) -> str:
    """Gives the first failures as further lines of a message."""
    lines = [f"{name}: {reason}" for name, reason in result.failures.items()]
    if len(lines) > _FAILURES_SHOWN:
        lines[_FAILURES_SHOWN:] = [f"and {len(lines) - _FAILURES_SHOWN} more"]
    return "".join(f"\n  {line}" for line in lines)


def _reporter(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)
