"""Scans a corpus on disk: who speaks in which file, and how long; reads headers only."""

import contextlib
import difflib
import gc
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import attrgetter

from speaker_encoder.audio.ranges import is_remote
from speaker_encoder.corpora.cache import Header, HeaderCache
from speaker_encoder.corpora.headers import read_headers
from speaker_encoder.corpora.layouts import LAYOUTS, Candidate, Collected, ScanRequest
from speaker_encoder.corpora.records import Corpus, ExcludedFile, Utterance
from speaker_encoder.corpora.shards import folder_of, is_address, refuse_secrets
from speaker_encoder.errors import UserError

# Of several files that differ in their extension only, the first of these is taken.
_PREFERRED_EXTENSIONS = (".wav", ".flac")
_GENERIC_LAYOUTS = ("folders", "sessions")
_SHARDS = ("webdataset", "huggingface")


@contextlib.contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Spares a third of a scan's time: it makes many records that last, and no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_garbage_collection_paused()
def scan(
    root: str | os.PathLike[str],
    layout: str = "auto",
    *,
    list_path: str | os.PathLike[str] | None = None,
    multi_rec_session: bool = False,
    num_workers: int | None = None,
    show_progress: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    use_cache: bool = True,
) -> Corpus:
    """A corpus as a sorted table of utterances.

    Args:
        root: the folder of the corpus, or a list file (its paths are relative to its folder), or
            shards: ``vox-{000..120}.tar``, ``https://host/{000..120}.tar``,
            ``hf://datasets/user/name/data/train-*.parquet``.
        layout: a name of ``LAYOUTS``, or ``"auto"``.
        list_path: a list file with lines ``speaker path``, the paths relative to ``root``.
        multi_rec_session: says that a corpus of no known layout is ``speaker/session/file``.
        num_workers: threads that read headers.
        show_progress: a progress bar on stderr; None shows it on a terminal only.
        cache_dir: where headers are remembered until their files change; None is
            ``SPEAKER_ENCODER_CACHE`` or the user's cache folder.
        use_cache: False reads every header anew and remembers none.

    Returns:
        The corpus; what was left out of it is in ``.excluded`` and ``.summary()``.

    Raises:
        UserError: the root is missing or empty, the layout is unknown, or no audio is found.
    """
    request = replace(
        _check_request(root, layout, list_path, multi_rec_session),
        cache_dir=cache_dir,
        use_cache=use_cache,
        show_progress=show_progress,
    )
    name = _choose_layout(request, layout)
    collected = LAYOUTS[name](request).collect()
    if not collected.candidates:
        raise UserError(_explain_nothing(request, name, collected))
    candidates = _take_one_of_each(collected)
    if collected.infos:
        headers = [Header(collected.infos[file.path]) for file in candidates]
    else:
        cache = HeaderCache(request.list_path or request.root, cache_dir) if use_cache else None
        headers = read_headers(
            candidates, cache, num_workers=num_workers, show_progress=show_progress
        )
    utterances = _build_utterances(candidates, headers, collected)
    if not utterances:
        raise UserError(_explain_nothing(request, name, collected))
    return Corpus(
        root=request.root,
        layout=name,
        utterances=tuple(utterances),
        excluded=tuple(sorted(collected.excluded, key=lambda file: (file.path, file.reason))),
        ignored=dict(sorted(collected.ignored.items())),
    )


def _check_request(
    root: str | os.PathLike[str],
    layout: str,
    list_path: str | os.PathLike[str] | None,
    multi_rec_session: bool,
) -> ScanRequest:
    root, known = os.fspath(root), ("auto", *LAYOUTS)
    refuse_secrets(root)
    refuse_secrets(os.fspath(list_path or ""))
    if layout not in known:
        nearest = difflib.get_close_matches(layout, known, n=1, cutoff=0)[0]
        raise UserError(
            f"Unknown corpus layout {layout!r}. Known: {', '.join(known)}; nearest: {nearest!r}."
        )
    if multi_rec_session and layout == "folders":
        raise UserError(
            "Layout 'folders' is speaker/file and has no sessions, but multi_rec_session is true. "
            "Use layout 'sessions' or 'auto', or set multi_rec_session to false."
        )
    if is_address(root) and not os.path.isdir(root):
        if list_path is not None and is_remote(root):
            raise UserError(
                f"A list file is given for {root}. A list is of files on this machine: leave it "
                "out, and name the shards that are wanted."
            )
        if list_path is not None:
            raise UserError(
                f"A list file is given for {root}. Give the folder of the shards, and in the list "
                "paths below it such as 000000.tar#1536+48000/p226_001.flac."
            )
        if layout not in ("auto", *_SHARDS):
            raise UserError(f"The corpus {root} is of shards, not of layout {layout!r}.")
        return ScanRequest(folder_of(root), address=root)
    if not os.path.lexists(root):
        raise UserError(f"The corpus {root} does not exist. Check the path.")
    if os.path.isfile(root):
        if list_path is not None:
            raise UserError(f"The root {root} is a file and list_path is given too. Give one list.")
        root, list_path = os.path.dirname(root) or ".", root
    elif not os.path.isdir(root):
        raise UserError(f"The corpus {root} is neither a folder nor a list file.")
    if not os.access(root, os.R_OK | os.X_OK):
        raise UserError(f"The corpus {root} cannot be read: permission denied.")
    if list_path is not None and layout not in ("auto", "list"):
        raise UserError(f"A list file is given, but layout is {layout!r}. Use 'auto' or 'list'.")
    return ScanRequest(
        root.rstrip("/") or "/", None if list_path is None else os.fspath(list_path),
        multi_rec_session,
    )  # fmt: skip


def _choose_layout(request: ScanRequest, layout: str) -> str:
    """The name of the layout; the folders are walked here unless a list says what there is."""
    if layout == "list" or request.list_path is not None:
        return "list"
    if layout in _SHARDS:
        return layout
    if request.address is not None:
        return next(name for name in reversed(_SHARDS) if LAYOUTS[name].recognises(request))
    if layout == "kaldi" or (layout == "auto" and LAYOUTS["kaldi"].recognises(request)):
        return "kaldi"  # its recordings lie anywhere
    tree = request.tree
    if not any(tree.audio_folders()):
        if layout == "auto":
            for name in _SHARDS:
                if LAYOUTS[name].recognises(request):
                    return name
        raise UserError(_explain_no_audio(request))
    if layout != "auto":
        return layout
    for name, candidate in LAYOUTS.items():
        if name not in (*_GENERIC_LAYOUTS, *_SHARDS) and candidate.recognises(request):
            return name
    if request.multi_rec_session or LAYOUTS["sessions"].recognises(request):
        return "sessions"
    return "folders"


def _explain_no_audio(request: ScanRequest) -> str:
    tree = request.tree
    if not tree.ignored and not tree.excluded and len(tree.folders) == 1:
        return f"The corpus {request.root} is an empty folder. Put recordings there, or correct it."
    found = [f"{count} x {kind}" for kind, count in tree.ignored.most_common(5)]
    found += [f"{file.path} ({file.reason})" for file in tree.excluded[:3]]
    found_text = "; ".join(found) or f"{len(tree.folders) - 1} folders without files"
    return (
        f"No audio files in {request.root}; found {found_text}. Wanted recordings with "
        "extensions such as .wav, .flac, .mp3, .m4a."
    )


def _explain_nothing(request: ScanRequest, name: str, collected: Collected) -> str:
    where = request.list_path or request.root
    reasons: dict[str, list[ExcludedFile]] = {}
    for file in collected.excluded:
        reasons.setdefault(file.reason, []).append(file)
    lines = [
        f"  {reason}: {len(files)} (such as {files[0].path}"
        + (f": {files[0].detail})" if files[0].detail else ")")
        for reason, files in reasons.items()
    ]
    text = f"No usable recording in {where}, read as layout {name!r} ({LAYOUTS[name].pattern})"
    if not lines:
        return f"{text}: there are none. Check the path."
    if name == "sessions" and any("session" in reason for reason in reasons):
        lines.append("  For recordings directly in the folders of speakers, use layout 'folders'")
        lines.append("  and set multi_rec_session to false.")
    elif name == "folders" and any("deeper" in reason for reason in reasons):
        lines.append("  For speaker/session/file, use layout 'sessions' or multi_rec_session.")
    return f"{text}. Left out:\n" + "\n".join(lines)


def _take_one_of_each(collected: Collected) -> list[Candidate]:
    """The candidates sorted by id; of one recording in two formats, the other is left out."""

    def preference(file: Candidate) -> tuple[int, str]:
        extension = os.path.splitext(file.path)[1].lower()
        return (*_PREFERRED_EXTENSIONS, extension).index(extension), file.path

    by_id = attrgetter("utterance_id")
    taken: list[Candidate] = []
    for _, group in itertools.groupby(sorted(collected.candidates, key=by_id), by_id):
        first, *others = group
        if others:  # few files have any
            first, *others = sorted((first, *others), key=preference)
        taken.append(first)
        for file in others:
            same = os.path.normpath(first.path) == os.path.normpath(file.path)
            reason = "listed twice" if same else "same name with another extension"
            collected.excluded.append(ExcludedFile(file.path, reason, first.path))
    return taken


def _build_utterances(
    candidates: Sequence[Candidate], headers: Sequence[Header], collected: Collected
) -> list[Utterance]:
    """The utterances; files without a good header and speakers without any are left out."""
    utterances = []
    for file, header in zip(candidates, headers, strict=True):
        if header.info is None:
            collected.excluded.append(ExcludedFile(file.path, header.reason, header.detail))
            continue
        utterances.append(
            Utterance(
                file.utterance_id,
                file.speaker_id,
                file.session_id,
                file.path,
                header.info.num_samples,
                header.info.sampling_rate,
            )
        )
    speakers = {utterance.speaker_id for utterance in utterances}
    for speaker_id, path in collected.speaker_paths.items():
        if speaker_id not in speakers:
            collected.excluded.append(
                ExcludedFile(path, "speaker without usable audio", speaker_id)
            )
    return utterances
