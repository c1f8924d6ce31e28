"""Draws embeddings: in the plane by UMAP or t-SNE, or how alike the speakers are.

examples:
  speaker-encoder plot umap --model ecapa --data_root corpus --output umap.png --html umap.html
  speaker-encoder plot tsne --embeddings corpus --output tsne.svg
  speaker-encoder plot similarity --model runs/my_run --data_root corpus --output similarity.png
umap and tsne write a picture and, with --html, a page whose points say who speaks and play on a
click. similarity writes the matrix of all speakers, and lists the most confusable pairs and the
most suspicious utterances in the terminal, in a JSON file and, with --html, on a page.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from speaker_encoder.plots.plot_data import PlotData
    from speaker_encoder.plots.speaker_similarity import SpeakerSimilarity

KINDS = ("umap", "tsne", "similarity")
PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
TITLES = {"umap": "UMAP", "tsne": "t-SNE", "similarity": "Speaker similarity"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `plot`."""
    parser.add_argument("kind", choices=KINDS, help="what to draw")
    parser.add_argument(
        "--model", metavar="PATH_OR_ID",
        help="a name such as ecapa (docs/encoders.md has all), a Hub id, a model folder, a run, a "
        "checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--data_root", metavar="DIR",
        help="the corpus; with --embeddings, where to find their speakers and audio",
    )  # fmt: skip
    parser.add_argument(
        "--embeddings", metavar="PATH",
        help="in place of --model: what `speaker-encoder embed` wrote, in any of its formats",
    )  # fmt: skip
    parser.add_argument("--layout", default="auto", help="of the corpus; default: auto")
    parser.add_argument(
        "--output", metavar="FILE",
        help="the picture: .png, .svg or .pdf; without a suffix .png and .svg; default: "
        "umap, tsne or similarity in this folder",
    )  # fmt: skip
    parser.add_argument(
        "--html", nargs="?", const="", metavar="FILE",
        help="also write a self-contained page that plays; default name: the picture's",
    )  # fmt: skip
    parser.add_argument(
        "--json", metavar="FILE",
        help="similarity: where the figures go; default: beside the picture",
    )  # fmt: skip
    parser.add_argument("--title", help="above the picture and on the page")
    parser.add_argument("--seed", type=int, default=42, help="of the projection and of samples")
    parser.add_argument("--max_speakers", type=int, metavar="N",
                        help="draw this many speakers, chosen at random; default: all")  # fmt: skip
    parser.add_argument("--max_utterances", type=int, metavar="N",
                        help="of each speaker, chosen at random; default: all")  # fmt: skip
    parser.add_argument("--num_listed", type=int, default=20, metavar="N",
                        help="similarity: pairs and utterances to list (default 20)")  # fmt: skip
    parser.add_argument(
        "--max_audio_megabytes", type=float, default=20.0, metavar="MB",
        help="a page holds its audio up to this size; more is played by relative path "
        "(default 20)",
    )  # fmt: skip
    parser.add_argument("--model_device", default="best", help="cpu, cuda, cuda:<number>, best")
    parser.add_argument("--batch_size", type=int, default=16, metavar="N")


def run(arguments: argparse.Namespace) -> int:
    """Draws; gives the exit code."""
    from speaker_encoder.errors import EXIT_DONE, EXIT_PARTLY, UserError

    pictures = picture_paths(arguments.output or arguments.kind)
    if arguments.num_listed < 1:
        raise UserError(f"--num_listed must be at least 1, found {arguments.num_listed}.")
    _check_places([*pictures, _page_path(arguments, pictures), _json_path(arguments, pictures)])
    data = _load(arguments)
    for reason, count in data.left_out.items():
        print(f"left out, {reason}: {count}", file=sys.stderr)
    source = arguments.model or arguments.embeddings
    title = arguments.title or f"{TITLES[arguments.kind]} of {Path(source).name or source}"
    if arguments.kind == "similarity":
        _similarity(arguments, data, pictures, title)
    else:
        _projection(arguments, data, pictures, title)
    return EXIT_PARTLY if data.left_out else EXIT_DONE


def picture_paths(output: str) -> list[Path]:
    """The pictures to write.

    Raises:
        UserError: a suffix that is no picture's.
    """
    from speaker_encoder.errors import UserError

    path = Path(output).expanduser()
    if not path.name or path.is_dir():
        raise UserError(f"--output must name a picture, found the folder {output!r}.")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return [path]
    if path.suffix.lower() in (".jpg", ".jpeg", ".gif", ".webp", ".html", ".json", ".tif", ".bmp"):
        known = ", ".join(PICTURE_SUFFIXES)
        raise UserError(f"--output must end in one of {known}, found {output!r}.")
    return [path.with_name(path.name + suffix) for suffix in (".png", ".svg")]


def _load(arguments: argparse.Namespace) -> PlotData:
    from speaker_encoder.errors import UserError
    from speaker_encoder.plots.plot_data import embed_corpus_for_plot, read_for_plot

    limits = {
        "layout": arguments.layout,
        "max_speakers": arguments.max_speakers,
        "max_utterances": arguments.max_utterances,
        "seed": arguments.seed,
    }
    if (arguments.model is None) == (arguments.embeddings is None):
        raise UserError("Give either --model with --data_root, or --embeddings.")
    if arguments.embeddings is not None:
        return read_for_plot(arguments.embeddings, arguments.data_root, **limits)
    if arguments.data_root is None:
        raise UserError("--model needs a corpus: give it with --data_root.")
    return embed_corpus_for_plot(
        arguments.model, arguments.data_root,
        device=arguments.model_device, batch_size=arguments.batch_size, **limits,
    )  # fmt: skip


def _projection(
    arguments: argparse.Namespace, data: PlotData, pictures: list[Path], title: str
) -> None:
    from speaker_encoder.plots.interactive import write_interactive
    from speaker_encoder.plots.points import draw_points
    from speaker_encoder.plots.projection import project_by

    print(f"{TITLES[arguments.kind]} of {len(data)} utterances", file=sys.stderr)
    points, note = project_by(data.embeddings, arguments.kind, seed=arguments.seed)
    _save(draw_points(points, data.speaker_ids, title, note), pictures)
    page = _page_path(arguments, pictures)
    if page is not None:
        audio = write_interactive(
            points, data.speaker_ids, data.utterance_ids, data.paths, page,
            title=title, note=note, max_audio_megabytes=arguments.max_audio_megabytes,
        )  # fmt: skip
        print(f"{page}: {audio.describe()}")


def _similarity(
    arguments: argparse.Namespace, data: PlotData, pictures: list[Path], title: str
) -> None:
    import json

    from speaker_encoder.export.files import write_bytes_atomically
    from speaker_encoder.plots.similarity_page import write_similarity_page
    from speaker_encoder.plots.similarity_plot import draw_similarity
    from speaker_encoder.plots.speaker_similarity import speaker_similarity

    similarity = speaker_similarity(
        data.embeddings, data.speaker_ids, data.utterance_ids, num_listed=arguments.num_listed
    )
    _print_similarity(similarity)
    _save(draw_similarity(similarity, title), pictures)
    json_path = _json_path(arguments, pictures)
    content = json.dumps(similarity.as_dict(), indent=1, allow_nan=False)
    write_bytes_atomically(json_path, content.encode("utf-8") + b"\n")
    print(json_path)
    page = _page_path(arguments, pictures)
    if page is not None:
        audio = write_similarity_page(
            similarity, dict(zip(data.utterance_ids, data.paths, strict=True)), page,
            title=title, max_audio_megabytes=arguments.max_audio_megabytes,
        )  # fmt: skip
        print(f"{page}: {audio.describe()}")


def _save(figure: Figure, pictures: list[Path]) -> None:
    from speaker_encoder.plots.figures import save_figure

    for path in pictures:
        print(save_figure(figure, path))


def _page_path(arguments: argparse.Namespace, pictures: list[Path]) -> Path | None:
    if arguments.html is None:
        return None
    return Path(arguments.html).expanduser() if arguments.html else pictures[0].with_suffix(".html")


def _json_path(arguments: argparse.Namespace, pictures: list[Path]) -> Path:
    return Path(arguments.json or pictures[0].with_suffix(".json")).expanduser()


def _check_places(paths: list[Path | None]) -> None:
    """Checks, before anything is computed, that the files can be written.

    Raises:
        UserError: one of them cannot.
    """
    from speaker_encoder.errors import UserError

    for path in (path for path in paths if path is not None):
        if path.is_dir():
            raise UserError(f"Wanted the name of a file to write, found the folder {path}.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_writable = os.access(path.parent, os.W_OK | os.X_OK)
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror}.") from error
        if not is_writable:
            raise UserError(f"Cannot write {path}: the folder is not yours to write to.")


def _print_similarity(similarity: SpeakerSimilarity) -> None:
    """Both lists as tables on stdout."""
    print("most confusable pairs of speakers (mean cosine; own: within each)")
    _print_table(
        ("speaker", "other", "similarity", "own", "other's own"),
        [
            (pair.first, pair.second, pair.similarity, pair.first_own, pair.second_own)
            for pair in similarity.pairs
        ],
    )
    print(f"\nutterances more like another speaker than their own: {similarity.num_misplaced}")
    if similarity.utterances:
        print("most suspicious utterances (cosine with their own and the nearest other speaker)")
        _print_table(
            ("utterance", "nearest speaker", "own", "nearest", "margin"),
            [
                (found.utterance_id, found.nearest_speaker_id, found.own, found.nearest,
                 found.margin)
                for found in similarity.utterances
            ],
        )  # fmt: skip
    print()


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> None:
    shown = [
        ["-" if v is None else _plain(v) if isinstance(v, str) else f"{v:.3f}" for v in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *shown, strict=True)]
    for row in (head, *shown):
        cells = [
            f"{text:<{width}}" if i < 2 else f"{text:>{width}}"
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells))


def _plain(name: str) -> str:
    """A name on one line that cannot move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
