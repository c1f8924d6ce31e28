"""Embeddings in the plane as one interactive page: a point tells who speaks, and plays."""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.plots.figures import printable, speaker_style
from speaker_encoder.plots.page import escape, json_block, make_page, write_page
from speaker_encoder.plots.page_audio import DEFAULT_MAX_MEGABYTES, PageAudio, page_audio

MEDIA_SOURCES = ("'self'", "file:")
"""Beside data URIs, for audio by relative path: the page's own server, or the disk it lies on."""
BODY = """
<p>{summary}</p>
<div class="layout">
<div class="stage">
<canvas id="plot" tabindex="0" role="application" aria-label="{label}"></canvas>
<div class="zoom"><button id="farther" type="button" title="farther">−</button
><button id="closer" type="button" title="closer">+</button
><button id="whole" type="button" title="show everything">all</button></div>
<div id="tip" hidden></div>
<p class="note">Hover: who speaks. Click: play. Wheel: zoom. Drag: move. Arrow keys: next
utterance.{note}</p>
</div>
<div class="side">
<div class="chosen" aria-live="polite">
<p id="speaker">No utterance chosen</p>
<p id="utterance">Click a point to hear it.</p>
<audio id="player" controls preload="none" hidden></audio>
<p id="problem" role="alert"></p>
</div>
<label><input id="search" type="search" placeholder="find speakers and utterances"
aria-label="find speakers and utterances" autocomplete="off"></label>
<p id="found" class="note"></p>
<div id="speakers"></div>
</div>
</div>
<noscript><p>This page draws its points with JavaScript, which is off.</p></noscript>
"""


def write_interactive(
    points: NDArray[np.floating],
    speaker_ids: Sequence[str],
    utterance_ids: Sequence[str],
    audio_paths: Sequence[str | None],
    path: str | os.PathLike[str],
    *,
    title: str,
    note: str = "",
    max_audio_megabytes: float = DEFAULT_MAX_MEGABYTES,
) -> PageAudio:
    """Writes one self-contained page of points that can be hovered, searched and played.

    It loads nothing from the network, and its policy forbids that it does. Names come in as data
    and are shown as text, whatever they hold.

    Args:
        points: (N, 2) finite.
        speaker_ids: (N,).
        utterance_ids: (N,).
        audio_paths: (N,) None where there is no audio.
        path: of the page.
        title: its heading.
        note: below the points.
        max_audio_megabytes: up to this the audio lies inside the page.

    Returns:
        How the page gets its audio.

    Raises:
        UserError: lengths that differ, no point, or audio that cannot be read.
    """
    lengths = {len(points), len(speaker_ids), len(utterance_ids), len(audio_paths)}
    if lengths in ({0}, set()) or len(lengths) > 1:
        raise UserError(
            "A page needs a speaker, an utterance and an audio path (or None) for each point; "
            f"found {len(points)}, {len(speaker_ids)}, {len(utterance_ids)}, {len(audio_paths)}."
        )
    # Neighbours in the list are neighbours for the arrow keys.
    order = sorted(range(len(points)), key=lambda i: (str(speaker_ids[i]), str(utterance_ids[i])))
    audio = page_audio([audio_paths[i] for i in order], path, max_megabytes=max_audio_megabytes)
    data = _page_data(
        unit_square(points)[order],
        [str(speaker_ids[i]) for i in order],
        [str(utterance_ids[i]) for i in order],
        audio,
    )
    num_silent = sum(source is None for source in audio.sources)
    summary = f"{len(data['speakers'])} speakers, {len(points)} utterances"
    if num_silent:
        summary += f"; {num_silent} without audio"
    body = BODY.format(
        summary=escape(summary),
        label=escape(f"{title}: {summary}"),
        note=escape(f" Note: {note}.") if note else "",
    )
    web = files("speaker_encoder.plots") / "web"
    page = make_page(
        title,
        body + json_block("data", data),
        style=(web / "embeddings.css").read_text(encoding="utf-8"),
        script=(web / "embeddings.js").read_text(encoding="utf-8"),
        media=() if audio.is_embedded else MEDIA_SOURCES,
    )
    write_page(Path(path), page)
    return audio


def _page_data(
    points: NDArray[np.float64], speaker_ids: list[str], utterance_ids: list[str], audio: PageAudio
) -> dict[str, Any]:
    """What the page's script reads."""
    speakers = sorted(set(speaker_ids))
    number = {speaker: i for i, speaker in enumerate(speakers)}
    return {
        "speakers": [printable(speaker) for speaker in speakers],
        "styles": [list(speaker_style(i)) for i in range(len(speakers))],
        "points": np.round(points, 5).ravel().tolist(),
        "speaker": [number[speaker] for speaker in speaker_ids],
        "utterance": [printable(utterance) for utterance in utterance_ids],
        "audio": audio.sources,
    }


def unit_square(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points moved and scaled alike in both directions so that they fill the unit square.

    Args:
        points: (N, 2) finite, N >= 1.

    Returns:
        (N, 2) in [0, 1], centred.
    """
    points = np.asarray(points, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    side = float((high - low).max()) or 1.0
    return (points - (low + high) / 2) / side + 0.5
