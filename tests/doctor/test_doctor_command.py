"""`speaker-encoder doctor` as a user runs it: reports, the list, the page, bad arguments."""

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from corpora_on_disk import RATE, plain_corpus, speech_like, write

from speaker_encoder.cli.main import main
from speaker_encoder.corpora import scan
from speaker_encoder.doctor import examine
from speaker_encoder.doctor.html_report import write_html

NASTY = '"><img src=x onerror=alert(1)>'


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Three speakers, one exact and one near duplicate, one broken file, one silent one."""
    root = plain_corpus(tmp_path / "corpus")
    shutil.copy(root / "s0" / "u1.wav", root / "s0" / "v1.wav")
    write(root / "s1" / "v2.wav", 0.5 * speech_like(102)[: 2 * RATE])
    (root / "s1" / "broken.wav").write_bytes(b"RIFF")
    write(root / "s2" / "silent.wav", np.zeros(2 * RATE, dtype=np.float32))
    return root


def listing(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class Page(HTMLParser):
    """Counts the elements of a page and keeps their addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]


def test_a_run_writes_reports_and_the_list_and_nothing_else(corpus, tmp_path, capsys):
    before = listing(corpus)
    output = tmp_path / "out"
    arguments = ["--data_root", str(corpus), "--output_dir", str(output), "--write_list"]
    assert main(["doctor", *arguments]) == 0
    shown = capsys.readouterr().out
    assert listing(corpus) == before
    assert sorted(path.name for path in output.iterdir()) == [
        "keep.txt", "report.html", "report.json",
    ]  # fmt: skip
    assert "1  Exact duplicates [duplicate]\n        s0/u1.wav = s0/v1.wav: the same" in shown
    assert "note: Without a model, voices are not compared" in shown
    assert "kept 12 of 15 recordings, 3 speakers" in shown
    report = json.loads((output / "report.json").read_text())
    assert report["counts"]["unusable"] == 1
    assert report["counts"]["near_duplicate"] == 1
    assert report["counts"]["no_speech"] == 1
    assert all(not os.path.isabs(p) for f in report["findings"] for p in f["paths"])
    kept = scan(corpus, list_path=output / "keep.txt", use_cache=False)
    assert len(kept.utterances) == 12
    assert {u.path for u in kept.utterances} == {
        str(path) for path in map(Path, before) if path.name.startswith("u")
    }


def test_kinds_can_be_kept_and_left_out(corpus, tmp_path):
    output = tmp_path / "out"
    arguments = ["--data_root", str(corpus), "--output_dir", str(output), "--write_list", "a.txt"]
    assert main(["doctor", *arguments, "--keep", "duplicate", "--keep", "near_duplicate"]) == 0
    assert len((output / "a.txt").read_text().splitlines()) == 14
    assert main(["doctor", *arguments, "--leave_out", "too_short"]) == 0
    assert len((output / "a.txt").read_text().splitlines()) == 12


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data_root", "nowhere"], "nowhere does not exist"),
        (["--data_root", "{root}", "--write_list", "../keep.txt"], "without a folder"),
        (["--data_root", "{root}", "--write_list", "report.json"], "a file of its own"),
        (["--data_root", "{root}", "--leave_out", "noise"], "Known: unusable, wrong_speaker"),
        (["--data_root", "{root}", "--keep", "level", "--leave_out", "level"], "Choose one"),
        (["--data_root", "{root}", "--eval_list", "x"], "--eval_list needs --eval_root"),
        (["--data_root", "{root}", "--batch_size", "0"], "--batch_size must be at least 1"),
        (["--data_root", "{root}", "--layout", "vct"], "nearest: 'vctk'"),
        (["--data_root", "{root}", "--model", "no/such/model"], "no/such/model"),
    ],
)
def test_what_the_user_must_change_is_exit_code_2(corpus, tmp_path, capsys, arguments, text):
    given = [argument.format(root=corpus) for argument in arguments]
    assert main(["doctor", *given, "--output_dir", str(tmp_path / "out")]) == 2
    assert text in capsys.readouterr().err


def test_help_names_the_exit_codes_and_has_an_example():
    shown = subprocess.run(
        [sys.executable, "-m", "speaker_encoder", "doctor", "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "speaker-encoder doctor --data_root corpus --model ecapa" in shown
    assert "The exit code is 0 whether something was found or not" in shown


def test_the_page_escapes_names_and_asks_for_nothing_outside(tmp_path):
    root = plain_corpus(tmp_path / "corpus", 2, 3)
    folder = root / 'a"b<i>&'
    write(folder / "one two#3%.wav", speech_like(1))  # same sound as s0/u1.wav
    write(folder / "x'<script>alert(1)<.wav", speech_like(2, 0.3))
    diagnosis = examine(scan(root, "folders", use_cache=False), model_name=NASTY)
    page = write_html(diagnosis, tmp_path / "out" / "report.html")
    parsed = Page(page.read_text())
    assert not {"script", "img", "i"} & set(parsed.tags)
    assert parsed.tags.count("audio") == 3
    players = [source for source in parsed.sources if not source.startswith("#")]
    assert all(source.startswith("data:audio/wav;base64,") for source in players)
    beside = write_html(diagnosis, tmp_path / "out" / "beside.html", embedded_megabytes=0)
    players = [source for source in Page(beside.read_text()).sources if source[0] != "#"]
    assert "../corpus/a%22b%3Ci%3E%26/one%20two%233%25.wav" in players
    assert all("://" not in source for source in players)
    assert beside.stat().st_size < 20_000 < page.stat().st_size


def test_names_that_are_no_text_and_names_with_spaces(tmp_path, capsys):
    root = plain_corpus(tmp_path / "corpus", 2, 3)
    bad = os.fsencode(str(root / "s0")) + b"/\xff.wav"
    shutil.copy(root / "s0" / "u0.wav", bad)
    write(root / "two words" / "line\nbreak.wav", speech_like(50))
    write(root / "two words" / "good name.wav", speech_like(51))
    output = tmp_path / "out"
    arguments = ["--data_root", str(root), "--output_dir", str(output), "--write_list"]
    assert main(["doctor", *arguments, "--layout", "folders", "--keep", "duplicate"]) == 0
    kept = scan(root, list_path=output / "keep.txt", use_cache=False)
    assert {utterance.speaker_id for utterance in kept.utterances} == {"s0", "s1", "two_words"}
    assert bad in {os.fsencode(utterance.path) for utterance in kept.utterances}
    assert len(kept.utterances) == 8
    assert "a line cannot hold its name" in capsys.readouterr().out
