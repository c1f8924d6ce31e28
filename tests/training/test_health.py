"""Signs of trouble: an exploding loss, a collapse."""

import logging

import numpy as np
import soundfile
import torch

from speaker_encoder.corpora import Utterance
from speaker_encoder.training.health import CollapseWatch, is_exploding
from speaker_encoder.training.last_batch import LastBatch
from speaker_encoder.training.record import RecordCallback
from speaker_encoder.training.run_dir import RunDirectory


def test_a_loss_explodes_at_five_times_that_of_the_step_before():
    assert is_exploding(5.0, 1.0) and is_exploding(float("inf"), 1.0)
    assert not is_exploding(4.99, 1.0)
    assert not is_exploding(5.0, None) and not is_exploding(1.0, 0.0)


def test_a_collapse_is_said_once_and_its_end_too(caplog):
    watch = CollapseWatch()
    with caplog.at_level(logging.INFO, logger="speaker_encoder"):
        watch.observe(0.5, 20.0, 1)
        assert not caplog.records
        watch.observe(0.999, 20.0, 2)
        watch.observe(0.999, 1.2, 3)
        watch.observe(0.5, 20.0, 4)
        watch.observe(0.5, 1.1, 5)
    texts = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in texts] == ["step 2", "step 4", "step 5"]
    assert "collapsed" in texts[0] and "spread out" in texts[1] and "collapsed" in texts[2]


class Recorder:
    """Stands at the place of tracker and plotter, whose own tests talk to the real ones."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments, **keywords: self.calls.append((name, arguments, keywords))


def test_an_exploding_batch_is_kept(tmp_path, caplog):
    utterances = [
        Utterance(f"s{i % 2}/u{i}", f"s{i % 2}", None, f"/x/u{i}.wav", 16000, 16000)
        for i in range(4)
    ]
    tracker, plotter = Recorder(), Recorder()
    config = type("Config", (), {"annote_point": False})()
    callback = RecordCallback(
        config, RunDirectory(tmp_path), tracker, plotter, utterances, (), 16000
    )
    waveforms = torch.rand(4, 1600) - 0.5
    labels = torch.tensor([0, 1, 0, 1])
    batch = LastBatch(9.0, torch.randn(4, 8), labels, waveforms, [0, 1, 2, 3])
    with caplog.at_level(logging.WARNING, logger="speaker_encoder"):
        callback._dump_explosion(batch, 7)
    assert "the loss jumped to 9.000" in caplog.text
    files = sorted((tmp_path / "audio" / "exploding_loss_000007").iterdir())
    assert [path.name for path in files][:2] == ["000_s0.flac", "001_s1.flac"]
    kept, rate = soundfile.read(files[0])
    assert rate == 16000
    np.testing.assert_allclose(kept, waveforms[0].numpy(), atol=1e-4)
    (_, (kind, path), drawn) = plotter.calls[0]
    assert kind == "umap" and path.name == "exploding_loss_umap_000007.png"
    assert drawn["labels"] == ["s0", "s1", "s0", "s1"]
    assert [name for name, _, _ in tracker.calls] == ["log_audio"] * 4
    assert tracker.calls[0][1][4] == {"step": 7, "speaker": "s0", "utterance": "s0/u0"}
