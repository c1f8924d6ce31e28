"""What all plots share: colours, markers, text that cannot break, and files written whole."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Okabe & Ito, "Color Universal Design", 2008; its yellow (too pale on white) darkened.
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8F7A00",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "*", ">", "h", "d")
DPI = 120
MAX_NAME_LENGTH = 18
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
WORLD_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Arabic",
    "Noto Sans Thai",
)


class Style(NamedTuple):
    """How one speaker's points look.

    Attributes:
        colour: of `PALETTE`.
        marker: of `MARKERS`.
        is_filled: false for outlines.
    """

    colour: str
    marker: str
    is_filled: bool


def speaker_style(number: int) -> Style:
    """The look of a speaker by its number: 208 distinct ones, then again from the start.

    Args:
        number: 0 and up.

    Returns:
        Neighbouring numbers differ in colour; each run of 8 shares a marker.
    """
    round_number = number // len(PALETTE)
    return Style(
        PALETTE[number % len(PALETTE)],
        MARKERS[round_number % len(MARKERS)],
        (round_number // len(MARKERS)) % 2 == 0,
    )


def printable(text: str) -> str:
    r"""A text without lone surrogates: a file name that is no valid text shows \udce9 instead.

    Args:
        text: any text.

    Returns:
        What UTF-8 can hold.
    """
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def short_name(name: str, max_length: int = MAX_NAME_LENGTH) -> str:
    """A name with its middle left out when it is long, on one line.

    Args:
        name: any text.
        max_length: of the result.

    Returns:
        The start and the end of the name.
    """
    name = " ".join(printable(name).split()) or "(no name)"
    if len(name) <= max_length:
        return name
    head = (max_length - 1) // 2
    return f"{name[:head]}…{name[head + 1 - max_length :]}"


def without_common_start(names: Sequence[str]) -> list[str]:
    """Names without the letters that all of them start with: SPEAKER0012 -> 0012.

    Args:
        names: any texts.

    Returns:
        As many texts; the names themselves when that saves fewer than 3 letters.
    """
    # What the first and the last in order share, all share.
    pairs = zip(min(names), max(names), strict=False)
    start = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = start.rstrip("0123456789")
    if len(start) < 3 or start in names:
        return list(names)
    return [name[len(start) :] for name in names]


def set_plain(text: "Text", content: str) -> None:
    """Sets a text that is shown as it is: `$` starts no formula, and any script is tried.

    Args:
        text: a matplotlib text.
        content: what to show.
    """
    text.set_parse_math(False)
    text.set_text(printable(content))
    if not content.isascii():
        text.set_fontfamily(font_families())


@cache
def font_families() -> list[str]:
    """Matplotlib's own font, then the installed ones that have the scripts it lacks."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in WORLD_FONTS if name in installed)]


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """No warning for a script that no installed font has: it is shown as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure that no global state of matplotlib knows of.

    Args:
        width: inches.
        height: inches.

    Returns:
        A figure with an Agg canvas: it needs no display.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> Path:
    """Writes a figure, complete or not at all.

    Args:
        figure: the figure.
        path: the file; its folder is made. The format is its suffix, png without one.

    Returns:
        The path.
    """
    from matplotlib import rc_context

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        kind = path.suffix.lstrip(".") or "png"
        # No version and no date inside: the same data give the same file.
        metadata = METADATA.get(kind)
        with quiet_fonts(), rc_context({"svg.hashsalt": "speaker-encoder"}):
            figure.savefig(partial, format=kind, metadata=metadata)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def save_png_and_svg(figure: "Figure", path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Writes a figure as PNG and as SVG, side by side.

    Args:
        figure: the figure.
        path: of the picture; a suffix .png or .svg is replaced by each of the two.

    Returns:
        (png_path, svg_path).
    """
    path = Path(path)
    stem = path.stem if path.suffix.lower() in (".png", ".svg") else path.name
    return (
        save_figure(figure, path.with_name(f"{stem}.png")),
        save_figure(figure, path.with_name(f"{stem}.svg")),
    )
