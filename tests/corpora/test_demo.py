"""The demonstration corpus: synthetic voices, always the same, never half built."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from speaker_encoder.audio import read_audio
from speaker_encoder.corpora import demo, scan
from speaker_encoder.corpora.demo_text import TRAIN_WORDS, VAL_WORDS
from speaker_encoder.corpora.espeak import SAMPLING_RATE, SpeechJob


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoCorpus:
    """The real one, but of each voice's sentences only the slowest and the quickest."""
    plan = demo._plan

    def extremes(*arguments, **options) -> list[SpeechJob]:
        voices: dict[str, list[SpeechJob]] = {}
        for job in plan(*arguments, **options):
            voices.setdefault(job.voice, []).append(job)
        chosen = []
        for jobs in voices.values():
            assert len(jobs) >= 8
            jobs.sort(key=lambda job: len(job.text) / job.words_per_minute)
            chosen += [jobs[0], jobs[-1]]
        return chosen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_plan", extremes)
        return demo.build_demo_corpus(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TRAIN_VOICES", ("f1", "m1"))
    monkeypatch.setattr(demo, "VAL_VOICES", ("Andrea",))
    monkeypatch.setattr(demo, "TRAIN_UTTERANCES", 2)
    monkeypatch.setattr(demo, "VAL_UTTERANCES", 2)


@pytest.mark.slow
def test_enough_voices_with_other_sentences(corpus: demo.DemoCorpus) -> None:
    train = scan(corpus.train_root, use_cache=False)
    val = scan(corpus.val_root, use_cache=False)
    assert train.layout == val.layout == "vctk"
    assert len(train.speakers) >= 40
    assert len(val.speakers) >= 20
    assert not set(train.speakers) & set(val.speakers)
    assert not train.excluded and not val.excluded
    for row in (*train.utterances, *val.utterances):
        assert row.sampling_rate == SAMPLING_RATE
        assert 1.5 < row.seconds < 12
    assert demo.TRAIN_UTTERANCES >= 10
    assert min(len(indices) for indices in train.speakers.values()) == 2
    assert "demonstration" in (corpus.train_root.parent / "README.txt").read_text()


def test_train_and_val_share_no_voice_and_no_word() -> None:
    assert not set(demo.TRAIN_VOICES) & set(demo.VAL_VOICES)
    for name in ("adjectives", "people", "verbs", "things", "places", "times"):
        assert not set(getattr(TRAIN_WORDS, name)) & set(getattr(VAL_WORDS, name))


@pytest.mark.slow
def test_the_recordings_are_sound(corpus: demo.DemoCorpus) -> None:
    for row in scan(corpus.val_root, use_cache=False).utterances[::2]:
        waveform = read_audio(row.path, SAMPLING_RATE)
        assert 0.002 < float((waveform**2).mean()) ** 0.5 < 0.5
        assert float((abs(waveform) >= 0.999).mean()) < 0.001


@pytest.mark.usefixtures("small_demo")
def test_it_is_built_once_and_always_the_same(tmp_path: Path) -> None:
    first = demo.build_demo_corpus(tmp_path / "a")
    times = {path: path.stat().st_mtime_ns for path in first.train_root.rglob("*")}
    assert demo.build_demo_corpus(tmp_path / "a") == first
    assert {path: path.stat().st_mtime_ns for path in first.train_root.rglob("*")} == times
    second = demo.build_demo_corpus(tmp_path / "b")
    for path in first.train_root.rglob("*.flac"):
        copy = second.train_root / path.relative_to(first.train_root)
        assert copy.read_bytes() == path.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("a/*")) == [first.train_root.parent.name]


@pytest.mark.usefixtures("small_demo")
def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "VAL_VOICES", ("no such voice",))
    with pytest.raises(RuntimeError, match="does not know the voice"):
        demo.build_demo_corpus(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_demo")
def test_what_a_killed_build_left_is_not_used(tmp_path: Path) -> None:
    old, new = tmp_path / "demo-old.part", tmp_path / "demo-new.part"
    for folder in (old, new):
        (folder / "train").mkdir(parents=True)
    os.utime(old, (1_700_000_000, 1_700_000_000))
    corpus = demo.build_demo_corpus(tmp_path)
    assert len(scan(corpus.train_root, use_cache=False).utterances) == 4
    assert not old.exists()
    assert new.exists(), "another process may be building there"


def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from speaker_encoder.corpora import demo\n"
        "demo.TRAIN_VOICES, demo.VAL_VOICES, demo.TRAIN_UTTERANCES = ('f1', 'm1'), ('Andrea',), 3\n"
        "print(demo.build_demo_corpus(sys.argv[1]).train_root)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    roots = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(roots) == 1
    assert len(list(tmp_path.iterdir())) == 1
    assert len(scan(roots.pop(), use_cache=False).utterances) == 6
