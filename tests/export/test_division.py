"""--num_workers auto: what is measured, what is chosen, and that the embeddings do not care."""

import logging
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from preloaded import Preloaded
from tiny_encoders import make_tiny

from speaker_encoder.corpora import Utterance
from speaker_encoder.errors import UserError
from speaker_encoder.export import ExportOptions, division, embed_corpus
from speaker_encoder.export.division import candidates_beside, choose, plan_rounds
from speaker_encoder.export.lanes import Division, usual_division
from speaker_encoder.export.planning import Unit
from speaker_encoder.export.source import Item, Source
from speaker_encoder.modeling import SpeakerEncoder, SpeakerEncoderOutput

FOLDER = Path(__file__).parent
TWO = Division(2, 1, 0)

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
from test_division import make_source
from tiny_encoders import make_tiny
from speaker_encoder.export import ExportOptions, division, embed_corpus

torch.set_num_threads(2)
division._MAX_SHARE = 1.0
encoder, calls = make_tiny(1), 0

def count(*_):
    global calls
    calls += 1
    if calls == 60:
        os.kill(os.getpid(), signal.SIGKILL)

encoder.register_forward_pre_hook(count)
options = ExportOptions("ecapa", sys.argv[2], output_dir=sys.argv[3], num_workers="auto",
                        show_progress=False)
embed_corpus(options, encoder=encoder, source=make_source(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def two_threads():
    """Two threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tone(tmp_path, monkeypatch) -> Path:
    """One file of 5 s that is read in no time."""
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tone"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.sin(np.arange(80_000) / 9), 16_000)
    return folder


def make_source(root: str | Path, count: int = 180) -> Source:
    """The files of a folder, each some times under other names."""
    paths = sorted(Path(root).rglob("*.wav"))
    items = []
    for number in range(count):
        path = paths[number % len(paths)]
        info = path.stat()
        utterance = Utterance(f"s/u{number:04d}", "s", None, str(path), *_size(path))
        items.append(Item(utterance, f"s/u{number:04d}.wav", info.st_size, info.st_mtime_ns))
    return Source(Path(root), "folders", "folders", items)


def _size(path: Path) -> tuple[int, int]:
    from speaker_encoder.audio import read_info

    info = read_info(path)
    return info.num_samples, info.sampling_rate


def run(root: Path, encoder: SpeakerEncoder, name: str, num_workers, count: int = 180):
    """Exports the source; gives the outcome and (N, D) embeddings."""
    folder = root.parent / name
    options = ExportOptions(
        "ecapa", str(root), output_dir=str(folder), num_workers=num_workers, show_progress=False
    )
    outcome = embed_corpus(options, encoder=encoder, source=make_source(root, count))
    files = sorted(folder.rglob("*.ecapa_embedding"))
    return outcome, torch.cat([torch.load(path, weights_only=True) for path in files])


def make_stub(forward_seconds) -> SpeakerEncoder:
    """An encoder whose forward pass is a wait."""

    class Stub(SpeakerEncoder):
        def forward(self, input_values, attention_mask=None, labels=None, return_dict=None):
            forward_seconds()
            return SpeakerEncoderOutput(embeddings=input_values[:, :24] + 1.0)

    return Stub(make_tiny(1).config).eval()


def said(caplog) -> str:
    (line,) = [r.getMessage() for r in caplog.records if "--num_workers auto" in r.getMessage()]
    return line


def test_the_embeddings_are_those_of_the_usual_division(libritts, monkeypatch, caplog):
    monkeypatch.setattr(division, "_MAX_SHARE", 1.0)
    caplog.set_level(logging.INFO)
    encoder = make_tiny(1)
    usual, expected = run(libritts, encoder, "usual", None)
    outcome, found = run(libritts, encoder, "auto", "auto")
    assert outcome.num_computed == usual.num_computed == len(found) == 180
    assert (found - expected).abs().max() <= 1e-5
    line = said(caplog)
    for candidate in candidates_beside(TWO):
        assert f"{candidate} " in line.partition("measured")[2]
    assert any(f"auto: {candidate};" in line for candidate in candidates_beside(TWO))


def test_threads_that_help_are_chosen_over_lanes(tone, monkeypatch, caplog):
    monkeypatch.setattr(division, "_MAX_SHARE", 1.0)
    caplog.set_level(logging.INFO)
    turn = threading.Lock()

    def wait() -> None:
        with turn:
            time.sleep(0.03 if torch.get_num_threads() == 1 else 0.003)

    run(tone, make_stub(wait), "out", "auto", count=130)
    assert "auto: 1 lane of 2 threads;" in said(caplog)


def test_lanes_that_help_are_chosen_over_threads(tone, monkeypatch, caplog):
    monkeypatch.setattr(division, "_MAX_SHARE", 1.0)
    caplog.set_level(logging.INFO)
    run(tone, make_stub(lambda: time.sleep(0.02)), "out", "auto", count=130)
    assert "auto: 2 lanes of 1 thread" in said(caplog)


def test_a_small_corpus_is_not_measured_on(libritts, caplog):
    caplog.set_level(logging.INFO)
    outcome, _ = run(libritts, make_tiny(1), "out", "auto", count=12)
    assert outcome.num_computed == 12
    assert said(caplog).endswith("too little to embed to measure on; 2 lanes of 1 thread")


def test_killed_while_it_measures_it_goes_on_with_another_division(libritts, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    killed = tmp_path / "killed"
    process = Preloaded(script, [FOLDER, libritts, killed], tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == -9
    done = {path: path.stat().st_mtime_ns for path in killed.rglob("*.ecapa_embedding")}
    assert 20 <= len(done) < 60
    encoder = make_tiny(1)
    outcome, found = run(libritts, encoder, "killed", 1)
    assert len(found) == 180
    again = [path for path, written in done.items() if path.stat().st_mtime_ns != written]
    assert len(again) <= 3  # written, but not noted any more: at most those of one unit
    assert outcome.num_computed == 180 - len(done) + len(again)
    assert (found - run(libritts, encoder, "whole", None)[1]).abs().max() <= 1e-5


def test_candidates_use_the_threads_there_are():
    assert candidates_beside(TWO) == [TWO, Division(1, 2, 0), Division(2, 1, 1)]
    for num_threads in (1, 3, 6, 16, 64):
        usual = Division(num_threads, 1, 0)
        first, *others = candidates_beside(usual)
        assert first == usual and len(set(others)) == len(others) > 0
        assert all(one.num_lanes * one.num_threads <= num_threads for one in others)


def test_rounds_take_neighbours_of_all_lengths_and_none_twice():
    units = [Unit((0,), is_long=True), *(Unit((number,)) for number in range(1, 301))]
    rounds = plan_rounds(units, num_candidates=3, num_at_once=4)
    pieces = [[unit.indices[0] for unit in piece] for pieces in rounds for piece in pieces]
    assert [len(piece) for piece in pieces] == [4] * 15
    numbers = [number for piece in pieces for number in piece]
    assert len(set(numbers)) == 60 and 0 not in numbers
    for number, group in enumerate(np.reshape(pieces, (5, 12))):
        assert np.ptp(group) == 11
        assert abs(np.mean(group) - (2 * number + 1) * 300 / 10) < 2
    assert np.ptp(np.mean(pieces, axis=1).reshape(5, 3), axis=1).max() == 2
    assert plan_rounds(units[:240], 3, 4) == []  # 239 that are not long; a quarter is less than 60
    assert len(plan_rounds(units[:241], 3, 4)) == 5


def test_the_usual_division_yields_to_more_than_chance_alone():
    candidates = candidates_beside(TWO)
    assert choose(candidates, [[100.0, 104.0, 90.0]]) == TWO
    assert choose(candidates, [[100.0, 106.0, 107.0]]) == candidates[2]
    disturbed = [[100.0, 106.0, 90.0], [50.0, 100.0, 45.0], [100.0, 20.0, 90.0]]
    assert choose(candidates, disturbed) == candidates[1]


def test_on_a_gpu_auto_is_by_the_number_of_cpus(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    encoder = SimpleNamespace(device=torch.device("cuda"))
    for asked, expected in (("auto", 5), (None, 5), (2, 2), (0, 0)):
        options = ExportOptions("ecapa", "corpus", num_workers=asked)
        assert usual_division(encoder, options) == Division(1, 2, expected)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    options = ExportOptions("ecapa", "corpus", num_workers="auto")
    assert usual_division(encoder, options).num_workers == 2


@pytest.mark.parametrize("found", [-1, "all", 1.5])
def test_other_numbers_are_refused(found):
    with pytest.raises(UserError, match=f"at least 0, or 'auto', found {found!r}"):
        ExportOptions("ecapa", "corpus", num_workers=found).check()
