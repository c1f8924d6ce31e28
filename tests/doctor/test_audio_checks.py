"""Findings in single recordings and of duplicates, on files made for them."""

import numpy as np
import pytest
import soundfile
from corpora_on_disk import RATE, plain_corpus, speech_like, write

from speaker_encoder.corpora import scan
from speaker_encoder.doctor import examine
from speaker_encoder.doctor.audio_facts import count_clipped, measure


def found(root, *, evaluation=None):
    corpus = scan(root, "folders", use_cache=False)
    other = scan(evaluation, "folders", use_cache=False) if evaluation else None
    diagnosis = examine(corpus, evaluation=other, num_workers=1)
    kinds: dict[str, list] = {}
    for finding in diagnosis.findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return kinds


def names(findings) -> list[str]:
    return ["/".join(finding.paths[0].split("/")[-2:]) for finding in findings]


def test_nothing_is_found_in_a_plain_corpus(tmp_path):
    assert found(plain_corpus(tmp_path)) == {}


def test_clipped_samples_by_hand():
    waveform = np.array([0.1, 0.5, 0.5, 0.5, 0.1, 0.5, 0.5, -0.3, -0.3, -0.3, -0.3], np.float32)
    assert count_clipped(waveform) == 3 + 4
    assert count_clipped(np.zeros(10, dtype=np.float32)) == 0
    assert count_clipped(speech_like(3)) == 0


def test_each_fault_of_a_recording_is_found(tmp_path):
    root = plain_corpus(tmp_path)
    loud = speech_like(900)
    write(root / "s0" / "clipped.wav", 0.5 * np.clip(6 * loud, -1, 1))
    write(root / "s0" / "quiet.flac", 0.005 * speech_like(901))
    write(root / "s0" / "short.wav", speech_like(902, 0.4))
    write(root / "s0" / "long.wav", np.concatenate([speech_like(k) for k in range(910, 918)]))
    write(root / "s1" / "silent.wav", np.zeros(3 * RATE, dtype=np.float32))
    padding = np.zeros(8 * RATE, dtype=np.float32)
    write(root / "s1" / "padded.wav", np.concatenate([padding[: 5 * RATE], speech_like(903, 2)]))
    write(root / "s1" / "slow.wav", speech_like(904, rate=8000), 8000)
    write(root / "s1" / "stereo.wav", np.stack([speech_like(905)] * 2, axis=1))
    write(root / "s2" / "nan.wav", speech_like(906))
    (root / "s2" / "empty.wav").write_bytes(b"")
    (root / "s2" / "text.wav").write_text("no audio")
    kinds = found(root)
    assert "s0/clipped.wav" in names(kinds["clipping"])
    assert "s0/quiet.flac" in names(kinds["level"])
    assert names(kinds["too_short"]) == ["s0/short.wav"]
    assert "s0/long.wav" in names(kinds["too_long"])
    assert names(kinds["no_speech"]) == ["s1/silent.wav"]
    assert "s1/padded.wav" in names(kinds["silence"])
    assert names(kinds["sampling_rate"]) == ["s1/slow.wav"]
    assert kinds["sampling_rate"][0].detail == "8000 Hz; 20 of 21 have 16000"
    assert names(kinds["channels"]) == ["s1/stereo.wav"]
    assert sorted(names(kinds["unusable"])) == ["s2/empty.wav", "s2/text.wav"]
    assert set(kinds["unusable"][0].suspects) == {kinds["unusable"][0].paths[0]}


def test_a_file_that_breaks_while_it_is_read_is_a_finding(tmp_path):
    root = plain_corpus(tmp_path)
    bad = root / "s1" / "u9.wav"
    waveform = speech_like(5)
    waveform[40000] = np.nan
    soundfile.write(bad, waveform, RATE, subtype="FLOAT")
    kinds = found(root)
    assert names(kinds["unusable"]) == ["s1/u9.wav"]
    assert kinds["unusable"][0].detail == "non-finite samples (NaN or infinity)"


def test_exact_and_near_duplicates(tmp_path):
    root = plain_corpus(tmp_path)
    write(root / "s0" / "x.flac", speech_like(0))  # another container, the same samples
    quarter = np.zeros(RATE // 4, dtype=np.float32)
    write(root / "s1" / "y.wav", np.concatenate([quarter, 0.4 * speech_like(202)]))
    kinds = found(root)
    (exact,) = kinds["duplicate"]
    assert exact.speakers == ("s0", "s0")
    assert [path.split("/")[-1] for path in exact.suspects] == ["x.flac"]
    (near,) = kinds["near_duplicate"]
    assert set(near.speakers) == {"s1", "s2"}
    assert len(near.suspects) == 2  # nobody knows whose it is
    assert "different speakers" in near.detail
    assert near.figures["bit_error_rate"] < 0.2


def test_recordings_and_names_shared_with_the_evaluation_data(tmp_path):
    root = plain_corpus(tmp_path / "train")
    other = plain_corpus(tmp_path / "eval", 1)
    (other / "s0").rename(other / "t0")
    write(other / "s2" / "u0.wav", speech_like(999))
    kinds = found(root, evaluation=other)
    assert len(kinds["duplicate"]) == 4
    assert kinds["duplicate"][0].detail == (
        "the same samples; in the data and in the evaluation data; different speakers"
    )
    (named,) = kinds["speaker_in_evaluation"]
    assert named.speakers == ("s2", "s2 (evaluation)")
    assert len(named.suspects) == 4
    assert all("/train/" in path for path in named.suspects)


def test_long_recordings_are_measured_in_blocks(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", speech_like(1, 7.0))
    whole = measure(str(path))
    monkeypatch.setattr("speaker_encoder.doctor.audio_facts._BLOCK_SECONDS", 2.0)
    blocks = measure(str(path))
    assert blocks.digest == whole.digest
    assert blocks.speech_seconds == pytest.approx(whole.speech_seconds, rel=0.25)
    assert blocks.level_db == pytest.approx(whole.level_db, abs=1.0)
