"""Which speakers are alike and which utterances look misplaced, as a page with players."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from speaker_encoder.plots.figures import save_figure
from speaker_encoder.plots.interactive import MEDIA_SOURCES
from speaker_encoder.plots.page import IMAGE_TYPES, data_uri, escape, make_page, write_page
from speaker_encoder.plots.page_audio import DEFAULT_MAX_MEGABYTES, PageAudio, page_audio
from speaker_encoder.plots.similarity_plot import draw_similarity
from speaker_encoder.plots.speaker_similarity import SpeakerSimilarity

STYLE = """
audio { width: 15rem; height: 2rem; vertical-align: middle; }
td { vertical-align: middle; }
td.name { white-space: nowrap; }
.below { color: #b00020; }
"""
NUMBER = '<td class="number">{}</td>'
NAME = '<td class="name">{}</td>'
EXPLANATION = """<p class="note">own: cosine with the mean of the speaker's other utterances;
nearest: with the mean of the most alike other speaker. Where own is less than nearest, the label
may be wrong, two names may be one person, or the recording is poor: listen.</p>"""


def write_similarity_page(
    similarity: SpeakerSimilarity,
    audio_paths: Mapping[str, str | None],
    path: str | os.PathLike[str],
    *,
    title: str,
    max_audio_megabytes: float = DEFAULT_MAX_MEGABYTES,
) -> PageAudio:
    """Writes a self-contained page: the picture, the pairs, and the utterances with a player each.

    Args:
        similarity: of `speaker_similarity`.
        audio_paths: utterance id -> audio file, or None.
        path: of the page.
        title: its heading.
        max_audio_megabytes: up to this the audio lies inside the page.

    Returns:
        How the page gets its audio.

    Raises:
        UserError: audio cannot be read.
    """
    listed = [audio_paths.get(found.utterance_id) for found in similarity.utterances]
    audio = page_audio(listed, path, max_megabytes=max_audio_megabytes)
    body = [
        f'<img src="{_picture(similarity)}" alt="speaker by speaker similarity">',
        "<h2>Most confusable pairs of speakers</h2>",
        _pairs(similarity),
        "<h2>Most suspicious utterances</h2>",
        EXPLANATION,
        f"<p>{similarity.num_misplaced} utterances are more like another speaker.</p>",
        _utterances(similarity, audio),
    ]
    media = () if audio.is_embedded else MEDIA_SOURCES
    write_page(Path(path), make_page(title, "\n".join(body), style=STYLE, media=media))
    return audio


def _picture(similarity: SpeakerSimilarity) -> str:
    """The matrix as a data URI: SVG, so that many names can be read when the page is enlarged."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_figure(draw_similarity(similarity), Path(folder) / "similarity.svg")
        return data_uri(path.read_bytes(), IMAGE_TYPES[".svg"])


def _pairs(similarity: SpeakerSimilarity) -> str:
    rows = "".join(
        f"<tr>{NAME.format(escape(pair.first))}{NAME.format(escape(pair.second))}"
        + "".join(
            NUMBER.format("–" if value is None else f"{value:.3f}")
            for value in (pair.similarity, pair.first_own, pair.second_own)
        )
        + "</tr>"
        for pair in similarity.pairs
    )
    head = "<th>speaker</th><th>other speaker</th>" + "".join(
        f'<th class="number">{name}</th>' for name in ("similarity", "own", "other's own")
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _utterances(similarity: SpeakerSimilarity, audio: PageAudio) -> str:
    rows = []
    for found, source in zip(similarity.utterances, audio.sources, strict=True):
        player = (
            f'<audio controls preload="none" src="{escape(source)}"></audio>'
            if source
            else "no audio"
        )
        mark = ' class="number below"' if found.margin < 0 else ' class="number"'
        rows.append(
            f"<tr><td>{escape(found.utterance_id)}</td>{NAME.format(escape(found.speaker_id))}"
            f"{NAME.format(escape(found.nearest_speaker_id))}"
            f"{NUMBER.format(f'{found.own:.3f}')}{NUMBER.format(f'{found.nearest:.3f}')}<td{mark}>{found.margin:+.3f}</td>"
            f"<td>{player}</td></tr>"
        )
    head = "<th>utterance</th><th>speaker</th><th>nearest other</th>" + "".join(
        f'<th class="number">{name}</th>' for name in ("own", "nearest", "margin")
    )
    return f'<div class="scroll"><table><tr>{head}<th></th></tr>{"".join(rows)}</table></div>'
