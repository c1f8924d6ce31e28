"""Scores, enrolled speakers, and what the page says of them."""

import numpy as np
import pytest

from speaker_encoder import SpeakerEncoder
from speaker_encoder.demo.page import describe_identity
from speaker_encoder.demo.scoring import MAX_SPEAKERS, Enrolment, enrol, identify, score_recordings
from speaker_encoder.demo.spectrogram import draw_spectrogram, power_in_db
from speaker_encoder.errors import UserError


@pytest.fixture(scope="module")
def encoder():
    return SpeakerEncoder.from_pretrained("dvector")


def test_a_centroid_is_the_mean_of_the_utterances(encoder, recordings):
    paths = next(iter(recordings.values()))[:3]
    enrolled = {}
    for path in paths[:2]:
        enrolled = enrol(encoder, enrolled, "  Ann\n Lee ", path)
    assert list(enrolled) == ["Ann Lee"]
    assert enrolled["Ann Lee"].num_utterances == 2
    embeddings = encoder.encode(paths).numpy()
    mean = embeddings[:2].mean(axis=0)
    wanted = float(mean / np.linalg.norm(mean) @ embeddings[2])
    ((name, score),) = identify(encoder, enrolled, paths[2])
    assert (name, score) == ("Ann Lee", pytest.approx(wanted, abs=1e-5))
    assert score_recordings(encoder, paths[0], paths[0]) == pytest.approx(1.0, abs=1e-5)


def test_each_speaker_is_found(encoder, recordings):
    enrolled = {}
    for name, paths in recordings.items():
        before = dict(enrolled)
        enrolled = enrol(encoder, enrolled, name, paths[0])
        assert before == {key: enrolled[key] for key in before}  # others are left as they were
    found = {name: identify(encoder, enrolled, paths[1]) for name, paths in recordings.items()}
    assert [scores[0][0] for scores in found.values()] == list(recordings)
    assert all(len(scores) == len(recordings) for scores in found.values())


def test_what_cannot_be_enrolled(encoder, tmp_path):
    full = {str(number): Enrolment(np.ones(256), 1) for number in range(MAX_SPEAKERS)}
    with pytest.raises(UserError, match="Give the speaker a name"):
        enrol(encoder, {}, " \n", "a.wav")
    with pytest.raises(UserError, match="at most 60 characters"):
        enrol(encoder, {}, "a" * 61, "a.wav")
    with pytest.raises(UserError, match=f"At most {MAX_SPEAKERS}"):
        enrol(encoder, full, "one more", "a.wav")
    with pytest.raises(UserError, match=r"nothing\.wav"):
        enrol(encoder, full, "7", str(tmp_path / "nothing.wav"))
    with pytest.raises(UserError, match="Enrol a speaker first"):
        identify(encoder, {}, "a.wav")


def test_a_tone_lies_at_its_frequency():
    time = np.arange(3 * 16000) / 16000
    decibel, step = power_in_db(np.sin(2 * np.pi * 2000 * time).astype(np.float32), 16000)
    assert decibel.shape == (201, 298) and step == 0.01
    assert set(decibel.argmax(axis=0)) == {50}  # 2000 Hz / 40 Hz
    assert decibel.max() == 0 and decibel.min() >= -80
    long, step = power_in_db(np.zeros(16000 * 60, np.float32), 16000)
    assert long.shape[1] <= 1200 and step == 0.05
    short, _ = power_in_db(np.ones(10, np.float32), 16000)
    assert short.shape == (201, 1)


def test_the_spectrogram_is_a_picture(recordings, tmp_path):
    path = next(iter(recordings.values()))[0]
    figure = draw_spectrogram(path, 16000, "Recording 1")
    figure.savefig(tmp_path / "spectrogram.png")
    assert (tmp_path / "spectrogram.png").stat().st_size > 10_000
    with pytest.raises(UserError):
        draw_spectrogram(str(tmp_path / "nothing.wav"), 16000, "none")


def test_names_do_nothing_on_the_page():
    name, best, table = describe_identity([("a|*<script>[x](http://y)", 0.9), ("Bo", 0.1)])
    assert best == 0.9 and table.endswith("| Bo | 0.1000 |")
    assert not set("*<>[](|") & set(name)
    assert not set("*<>[](") & set(table) and table.count("|") == 3 + 4 + 3 + 3 - 1
