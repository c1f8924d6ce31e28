"""The report of an evaluation: its figures and pictures in one page that needs nothing else."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speaker_encoder.plots.page import escape, inline_image, make_page, write_page
from speaker_encoder.plots.report_sections import (
    Section,
    detail_sections,
    interval_note,
    report_sections,
)
from speaker_encoder.plots.tables import show_name, show_section

CAPTIONS = {
    "det": "Detection error tradeoff: misses against false accepts at every threshold.",
    "histogram": "Scores of target and nontarget trials; each class fills an area of 1.",
}
MAX_SVG_BYTES = 500_000
"""A larger SVG makes way for the PNG beside it."""


def write_report(
    results: Mapping[str, Any],
    pictures: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    title: str = "Speaker verification report",
) -> Path:
    """Writes the results of `evaluate` as a page with tables, and the pictures inside it.

    Results of another shape are shown too: a mapping of mappings, or a list of them, becomes a
    table. `x_interval` beside `x`, and `{"value": x, "interval": [low, high]}`, become one cell.
    Error rates, recognised by their names, are shown in percent.

    Args:
        results: what `results.json` holds.
        pictures: .png and .svg files; of two with the same stem one is shown.
        path: of the page.
        title: its heading.

    Returns:
        The path.

    Raises:
        UserError: a picture cannot be read.
    """
    parts = [_shown(section) for section in report_sections(results)]
    if note := interval_note(results):
        parts.insert(1, f'<p class="note">{escape(note)}</p>')
    figures = []
    for picture in choose_pictures(pictures):
        caption = _caption(picture.stem)
        figures.append(
            f"<figure>{inline_image(picture, caption)}"
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    if figures:
        parts += ["<h2>Pictures</h2>", *figures]
    parts += [_shown(section) for section in detail_sections(results)]
    return write_page(path, make_page(title, "\n".join(parts)))


def _shown(section: Section) -> str:
    heading, value = section
    return f"<h2>{escape(show_name(heading))}</h2>{show_section(value, level=3)}"


def choose_pictures(pictures: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """One picture of each stem: the SVG, which stays sharp, unless it is large.

    Args:
        pictures: files.

    Returns:
        In the order given, each stem once.
    """
    chosen: dict[Path, Path] = {}
    for picture in map(Path, pictures):
        stem = picture.with_suffix("")
        is_svg = picture.suffix.lower() == ".svg"
        is_small = not is_svg or (picture.is_file() and picture.stat().st_size <= MAX_SVG_BYTES)
        if stem not in chosen or (is_svg and is_small):
            chosen[stem] = picture
        elif chosen[stem].suffix.lower() == ".svg" and not is_svg:
            size = chosen[stem].stat().st_size if chosen[stem].is_file() else 0
            chosen[stem] = picture if size > MAX_SVG_BYTES else chosen[stem]
    return list(chosen.values())


def _caption(stem: str) -> str:
    for name, caption in CAPTIONS.items():
        if stem == name:
            return caption
        if stem.startswith((f"{name}_", f"{name}-")):
            return f"{caption} ({stem[len(name) + 1 :]})"
    return stem
