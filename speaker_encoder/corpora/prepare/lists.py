"""Lists of what was prepared: `speaker path` for training, paths of noises, a Kaldi folder."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

from speaker_encoder.corpora.kaldi import write_kaldi_folder, write_lines
from speaker_encoder.corpora.prepare.options import Prepared, PrepareOptions
from speaker_encoder.corpora.scan import scan
from speaker_encoder.errors import UserError

_LINE_BREAK = "not in the list: a line break in its path"


def list_speakers(options: PrepareOptions, layout: str, root: Path, result: Prepared) -> None:
    """Scans a corpus and writes `lists/<corpus>.txt` with lines `speaker path`.

    Raises:
        UserError: there is no usable recording, or two speakers would be one in the list.
    """
    corpus = scan(root, layout, num_workers=options.num_workers)
    own = {options.output_dir / "lists", options.output_dir / "archives", options.kaldi_dir}
    own_paths = [os.path.abspath(path) + os.sep for path in own if path is not None]
    excluded = [
        file
        for file in corpus.excluded
        if not any(path.startswith(os.path.abspath(file.path) + os.sep) for path in own_paths)
    ]
    result.corpus = dataclasses.replace(corpus, excluded=tuple(excluded))
    pairs = ((utterance.speaker_id, utterance.path) for utterance in corpus.utterances)
    write_speaker_list(options, pairs, Path(corpus.root), result)
    _write_kaldi(options, result)


def list_cut(
    options: PrepareOptions, written: Iterable[tuple[str, Path]], result: Prepared
) -> None:
    """Writes the list of recordings that were cut, and nothing else of their folder."""
    path = write_speaker_list(options, written, options.output_dir, result)
    result.corpus = scan(
        options.output_dir, "list", list_path=path, num_workers=options.num_workers
    )
    _write_kaldi(options, result)


def write_speaker_list(
    options: PrepareOptions,
    pairs: Iterable[tuple[str, str | Path]],
    root: Path,
    result: Prepared,
) -> Path:
    """Writes the list: white space in a speaker's name becomes `_`, as it ends the name there.

    Returns:
        Its path.

    Raises:
        UserError: two speakers would have the same name.
    """
    speakers: dict[str, str] = {}
    lines = []
    for speaker, path in pairs:
        name = re.sub(r"\s+", "_", speaker)
        if speakers.setdefault(name, speaker) != speaker:
            raise UserError(
                f"Speakers {speakers[name]!r} and {speaker!r} would both be {name!r} in a list. "
                "Rename one of them."
            )
        relative = os.path.relpath(path, root)
        if len(relative.splitlines()) > 1:
            result.failures[str(path)] = _LINE_BREAK
            continue
        lines.append(f"{name} {relative if relative == relative.strip() else f'./{relative}'}")
    list_path = options.output_dir / "lists" / f"{options.corpus}.txt"
    write_lines(list_path, lines)
    result.lists[str(list_path)] = len(lines)
    return list_path


def list_noises(
    options: PrepareOptions, found: Iterable[Path], root: Path, result: Prepared
) -> None:
    """Writes a list of paths for each kind of noise, which is the folder below the first one."""
    output = options.output_dir
    groups: dict[str, list[str]] = {}
    for path in found:
        parts = path.relative_to(root).parts
        kind = parts[1] if len(parts) > 2 else parts[0]
        if len(str(path).splitlines()) > 1:
            result.failures[str(path)] = _LINE_BREAK
            continue
        groups.setdefault(f"{options.corpus}_{kind}", []).append(str(path.relative_to(output)))
    for name, paths in sorted(groups.items()):
        write_lines(output / "lists" / f"{name}.txt", sorted(paths))
        result.lists[str(output / "lists" / f"{name}.txt")] = len(paths)


def _write_kaldi(options: PrepareOptions, result: Prepared) -> None:
    if options.kaldi_dir is not None and result.corpus is not None:
        count = write_kaldi_folder(result.corpus.utterances, options.kaldi_dir)
        result.lists[str(options.kaldi_dir / "wav.scp")] = count
