from itertools import pairwise
from pathlib import Path

import browser
import matplotlib.figure
import numpy as np
import pytest
import soundfile

from speaker_encoder.errors import UserError
from speaker_encoder.plots.figures import save_figure
from speaker_encoder.plots.similarity_page import write_similarity_page
from speaker_encoder.plots.similarity_plot import draw_similarity
from speaker_encoder.plots.speaker_similarity import speaker_similarity

EVIL = '<script>alert(1)</script>"'


def batch(counts: list[int], seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(len(counts)), counts)
    rows = rng.normal(size=(len(counts), 12))[numbers] + 0.6 * rng.normal(size=(len(numbers), 12))
    return (
        rows.astype(np.float32),
        [f"p{n:03d}" for n in numbers],
        [f"u{i}" for i in range(len(rows))],
    )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_by_hand() -> None:
    # a: two at 0 degrees; b: one at 60 degrees and one at 0 degrees, which looks like a.
    angles = np.deg2rad([0, 0, 60, 0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = speaker_similarity(rows, ["a", "a", "b", "b"], ["a1", "a2", "b1", "b2"])
    np.testing.assert_allclose(found.matrix, [[1.0, 0.75], [0.75, 0.5]], atol=1e-6)
    worst = found.utterances[0]
    assert (worst.utterance_id, worst.nearest_speaker_id) == ("b2", "a")
    assert (worst.own, worst.nearest, worst.margin) == pytest.approx((0.5, 1.0, -0.5), abs=1e-6)
    assert found.num_misplaced == 1
    (pair,) = found.pairs
    assert (pair.first, pair.second) == ("a", "b")
    assert (pair.similarity, pair.first_own, pair.second_own) == pytest.approx((0.75, 1, 0.5))


def test_equals_naive_loops() -> None:
    rows, speakers, ids = batch([3, 1, 5, 2])
    rows *= np.linspace(0.1, 9, len(rows))[:, None].astype(np.float32)  # lengths do not count
    found = speaker_similarity(rows, speakers, ids, num_listed=100)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for i, a in enumerate(found.speakers):
        for j, b in enumerate(found.speakers):
            cosines = [
                cosine(rows[x], rows[y])
                for x in range(len(rows)) for y in range(len(rows))
                if x != y and speakers[x] == a and speakers[y] == b
            ]  # fmt: skip
            wanted = np.mean(cosines) if cosines else np.nan
            np.testing.assert_allclose(found.matrix[i, j], wanted, atol=1e-6)
    assert [pair.similarity for pair in found.pairs] == sorted(
        (found.matrix[i, j] for i in range(4) for j in range(i)), reverse=True
    )
    assert len(found.utterances) == 10  # the speaker with one utterance has none to compare with
    for item in found.utterances:
        x = ids.index(item.utterance_id)
        others = [y for y in range(len(rows)) if speakers[y] == speakers[x] and y != x]
        assert item.own == pytest.approx(cosine(rows[x], units[others].mean(axis=0)), abs=1e-6)
        nearest = {
            name: cosine(rows[x], units[[s == name for s in speakers]].mean(axis=0))
            for name in found.speakers if name != speakers[x]
        }  # fmt: skip
        assert item.nearest_speaker_id == max(nearest, key=nearest.get)
        assert item.nearest == pytest.approx(max(nearest.values()), abs=1e-6)
    assert found.as_dict()["matrix"][1][1] is None


def test_a_planted_utterance_is_found_first() -> None:
    rows, speakers, ids = batch([6] * 8)
    rows[20] = rows[40] * 0.99 + 0.01
    found = speaker_similarity(rows, speakers, ids, num_listed=3)
    assert found.utterances[0].utterance_id == "u20"
    assert found.utterances[0].nearest_speaker_id == speakers[40]
    assert len(found.pairs) == len(found.utterances) == 3


def test_one_speaker_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2 speakers, found 1"):
        speaker_similarity(np.ones((2, 3)), ["a", "a"], ["x", "y"])
    with pytest.raises(UserError, match="found 2, 1 and 2"):
        speaker_similarity(np.ones((2, 3)), ["a"], ["x", "y"])


def names_in(figure: matplotlib.figure.Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_speakers", [2, 3, 12, 40, 200, 230])
def test_all_names_can_be_read(tmp_path: Path, num_speakers: int) -> None:
    found = speaker_similarity(*batch([2] * num_speakers))
    figure = draw_similarity(found, "title")
    names = names_in(figure)
    assert len(names) == min(num_speakers, 200)
    assert set(names) <= set(found.speakers)
    renderer = figure.canvas.get_renderer()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = [label.get_window_extent(renderer) for label in axis.get_ticklabels()]
        assert min(min(box.x0, box.y0) for box in boxes) >= 0
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert figure.axes[1].get_window_extent(renderer).x1 < figure.bbox.x1
    assert ("most alike another" in figure.texts[1].get_text()) == (num_speakers > 200)
    # The cells are those of the speakers named beside them.
    shown = figure.axes[0].images[0].get_array()
    order = [found.speakers.index(name) for name in names]
    np.testing.assert_allclose(np.asarray(shown), found.matrix[np.ix_(order, order)])
    if num_speakers == 12:
        save_figure(figure, tmp_path / "x.svg")


@pytest.mark.filterwarnings("error")
def test_odd_names_and_single_utterances_are_drawn(tmp_path: Path) -> None:
    rows, _, ids = batch([2, 2, 1, 2])
    names = ["_a", "_a", "$b^{", "$b^{", "声优", EVIL, EVIL]
    figure = draw_similarity(speaker_similarity(rows, names, ids), "$_{")
    assert sorted(names_in(figure)) == sorted(["_a", "$b^{", "声优", '<script>…/script>"'])
    save_figure(figure, tmp_path / "x.png")


def test_page_lists_pairs_and_utterances(tmp_path: Path) -> None:
    rows, _, ids = batch([2, 2])
    found = speaker_similarity(rows, [EVIL, EVIL, "b", "b"], ids)
    audio = tmp_path / "u.wav"
    audio.write_bytes(b"RIFF")
    path = tmp_path / "page.html"
    result = write_similarity_page(found, {"u0": str(audio)}, path, title=f"t {EVIL}")
    page = path.read_text(encoding="utf-8")
    assert page.count("<audio ") == 1
    assert page.count("no audio") == 3
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "data:image/svg+xml" in page
    assert result.is_embedded


@pytest.mark.slow
@pytest.mark.parametrize("max_megabytes", [20, 0])
def test_players_of_the_page_play(driver, tmp_path: Path, max_megabytes: float) -> None:
    rows, speakers, ids = batch([2, 2])
    paths = {name: str(tmp_path / f"{name} #%.wav") for name in ids}
    for path in paths.values():
        soundfile.write(path, np.zeros(16_000), 16_000)
    page = tmp_path / "page.html"
    found = speaker_similarity(rows, speakers, ids)
    write_similarity_page(found, paths, page, title="t", max_audio_megabytes=max_megabytes)
    browser.open_page(driver, page)
    assert driver.execute_script("return document.images[0].naturalWidth") > 100
    players = driver.find_elements("tag name", "audio")
    assert len(players) == 4
    driver.execute_script("arguments[0].focus()", players[0])
    players[0].send_keys(" ")
    ended = "return document.querySelector('audio').ended"
    browser.wait(driver, ended)
    assert browser.complaints(driver) == []
