"""Where the archives are: given, or downloaded."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from speaker_encoder.corpora.prepare.archives import Archive, group_parts
from speaker_encoder.corpora.prepare.download import download, shown
from speaker_encoder.corpora.prepare.options import PrepareOptions, Progress
from speaker_encoder.corpora.prepare.published import PublishedCorpus, known_archives
from speaker_encoder.errors import UserError


def find_archives(
    options: PrepareOptions, published: PublishedCorpus, *, is_needed: bool, progress: Progress
) -> list[Archive]:
    """Finds the archives, downloading first what is to be downloaded.

    Args:
        options: say where.
        published: the corpus.
        is_needed: whether there has to be one: nothing was unpacked yet.
        progress: is told (what, bytes done, bytes in all).

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
        if given.exists() and not os.access(given, os.R_OK):
            raise UserError(f"--archives: {given} cannot be read: no permission.")
        if given.is_dir():
            paths += [path for path in sorted(given.iterdir()) if _fits(path, published)]
        elif given.is_file():
            paths.append(given)
        else:
            raise UserError(f"--archives: {given} is not there.")
    unique = list({path.resolve(): path for path in paths}.values())
    if not unique and is_needed:
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
    names = ", ".join(_downloadable(corpus)) or "none: ask for addresses at the corpus's own page"
    raise UserError(
        f"--download: no address of {shown(name)!r} is known. An address begins with http:// or "
        f"https://; known for {corpus}: {names}."
    )
