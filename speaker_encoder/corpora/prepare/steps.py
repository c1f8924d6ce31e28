"""The steps from archives to a corpus: download, check, unpack, convert, split, list."""

from __future__ import annotations

import json
from pathlib import Path

from speaker_encoder.audio import AUDIO_EXTENSIONS
from speaker_encoder.corpora.kaldi import read_kaldi_folder, write_lines
from speaker_encoder.corpora.prepare.archives import Archive, check_sums
from speaker_encoder.corpora.prepare.lists import list_cut, list_noises, list_speakers
from speaker_encoder.corpora.prepare.options import (
    KALDI,
    ON_DISK,
    Prepared,
    PrepareOptions,
    Progress,
)
from speaker_encoder.corpora.prepare.published import CORPORA, PublishedCorpus, known_archives
from speaker_encoder.corpora.prepare.recordings import (
    COMPRESSED,
    convert,
    cut_segments,
    find_recordings,
    first_failures,
    split_noises,
)
from speaker_encoder.corpora.prepare.sources import find_archives
from speaker_encoder.corpora.prepare.unpack import unpack
from speaker_encoder.corpora.prepare.written import STATE_FOLDER
from speaker_encoder.corpora.shards import is_address
from speaker_encoder.corpora.shards.write import write_shards
from speaker_encoder.errors import UserError


def prepare(
    options: PrepareOptions, progress: Progress = lambda what, done, total: None
) -> Prepared:
    """Makes a corpus of archives; what an earlier, killed run has done is not done again.

    With other options than before, or changed sources, what is not as asked is made again, and
    recordings that `prepare` made and that are no longer wanted are removed.

    Args:
        options: what is prepared.
        progress: is told (what, done, in all).

    Returns:
        What was made.

    Raises:
        UserError: an archive is missing, damaged or dangerous, the folder is another corpus, or
            there is nothing to prepare.
    """
    result = Prepared()
    output = options.output_dir
    _check_kaldi_dir(options)
    if options.corpus == KALDI:
        data_dir = _only_folder(options, "a Kaldi data folder")
        utterances = read_kaldi_folder(data_dir)
        _claim(output, f"kaldi {data_dir.resolve()}")
        list_cut(options, cut_segments(utterances, options, result, progress), result)
    elif options.corpus == ON_DISK:
        list_speakers(options, "auto", _only_corpus(options), result)
    else:
        published = CORPORA[options.corpus]
        is_new = _claimed(output) is None
        archives = find_archives(options, published, is_needed=is_new, progress=progress)
        _claim(output, options.corpus)
        for archive in archives:
            _unpack(archive, options, published, result, progress)
        convert(options, published, result, progress)
        if published.layout is not None:
            list_speakers(options, published.layout, output, result)
        else:
            _list_noises(options, published, result, progress)
    if not result.lists:
        raise UserError(
            f"No recordings were found in {output}. To have an archive unpacked again, delete "
            f"{output / STATE_FOLDER / '<its name>.json'}.{first_failures(result)}"
        )
    if options.shards_dir is not None:
        if result.corpus is None:
            raise UserError(f"--shards: {options.corpus} has no speakers. Leave it out.")
        size = round(options.shard_megabytes * 1_000_000)
        result.shards = write_shards(result.corpus, options.shards_dir, size, progress)
    return result


def _only_folder(options: PrepareOptions, what: str) -> Path:
    if len(options.archives) != 1 or not options.archives[0].is_dir():
        raise UserError(f"prepare {options.corpus} wants --archives with {what}.")
    return options.archives[0]


def _only_corpus(options: PrepareOptions) -> Path:
    """The corpus that lies on disk: a folder, or a pattern that means shards."""
    if len(options.archives) == 1 and is_address(str(options.archives[0])):
        return options.archives[0]
    return _only_folder(options, "the folder of a corpus, or 'quoted/*.tar'")


def _check_kaldi_dir(options: PrepareOptions) -> None:
    """Keeps a Kaldi data folder of the user's from being written over.

    Raises:
        UserError: `kaldi_dir` is one.
    """
    folder = options.kaldi_dir
    if folder is None:
        return
    given = [path.resolve() for path in options.archives] if options.corpus == KALDI else []
    if folder.resolve() in given or (folder / "segments").exists():
        raise UserError(
            f"--kaldi: {folder} is a Kaldi data folder whose utterances are parts of recordings; "
            "its files would be written over. Give another folder."
        )


def _claimed(output: Path) -> str | None:
    """Gives what the folder was prepared as, None: it was not."""
    path = output / STATE_FOLDER / "corpus"
    return path.read_text("utf-8", errors="surrogateescape").strip() if path.is_file() else None


def _claim(output: Path, corpus: str) -> None:
    """Notes what the folder becomes, as the steps go over all that lies in it.

    Raises:
        UserError: it is another corpus already.
    """
    before = _claimed(output)
    if before is not None and before != corpus:
        raise UserError(
            f"{output} was prepared as {before!r}, asked now: {corpus!r}. Give each corpus an "
            "--output_dir of its own. If it is the same one and was moved, delete "
            f"{output / STATE_FOLDER / 'corpus'}."
        )
    write_lines(output / STATE_FOLDER / "corpus", [corpus])


def _unpack(
    archive: Archive,
    options: PrepareOptions,
    published: PublishedCorpus,
    result: Prepared,
    progress: Progress,
) -> None:
    """Checks and unpacks an archive, if it is not unpacked whole already.

    Files that are there count only when they are of the same archive, which was not found damaged:
    of a damaged one they may have the right size and the wrong content.
    """
    state = options.output_dir / STATE_FOLDER / f"{archive.name}.json"
    begun = json.dumps({"archive": archive.fingerprint, "is_whole": False})
    whole = json.dumps({"archive": archive.fingerprint, "is_whole": True})
    before = state.read_text("utf-8").strip() if state.is_file() else ""
    if before == whole:
        return
    known = known_archives(options.corpus)
    if options.check and not check_sums(archive, known, progress):
        result.unchecked.append(archive.name)
    inside = next((f for start, f in published.folders if archive.name.startswith(start)), "")
    write_lines(state, [begun])
    target = options.output_dir / inside
    try:
        num_links = unpack(
            archive, target, published.leave_out, goes_on=before == begun, progress=progress
        )
    except UserError:
        state.unlink()
        raise
    if num_links:
        result.links[archive.name] = num_links
    write_lines(state, [whole])


def _list_noises(
    options: PrepareOptions, published: PublishedCorpus, result: Prepared, progress: Progress
) -> None:
    """Writes the lists of a corpus of noises, of which long ones are split first."""
    root = options.output_dir
    own = ("split", "archives", "lists")
    found = find_recordings(root, AUDIO_EXTENSIONS)
    found = [path for path in found if path.relative_to(root).parts[0] not in own]
    converted = {p.with_suffix("") for p in found if p.suffix.lower() not in COMPRESSED}
    found = [
        path
        for path in found
        if path.suffix.lower() not in COMPRESSED or path.with_suffix("") not in converted
    ]
    if published.split:
        pieces = split_noises(found, options, result, progress)
        if options.split_seconds > 0:
            list_noises(options, pieces, root / "split", result)
            return
    list_noises(options, found, root, result)
