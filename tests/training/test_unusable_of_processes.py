"""Files that one process of several could not use are known to what a resume begins with."""

import json
from pathlib import Path

import numpy as np
import pytest
from broken_files import RATE, CorpusWriter, make_config

_SPEAKERS = [f"s{number:02}" for number in range(40)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Each speaker has one recording of silence; the run below draws it once at most."""
    corpus = CorpusWriter(tmp_path_factory.mktemp("corpus")).speakers(*_SPEAKERS, num_utterances=5)
    for speaker in _SPEAKERS:
        corpus.write(speaker, "silence.wav", np.zeros(RATE, np.float32))
    return corpus.root


@pytest.mark.slow
@pytest.mark.ddp
def test_a_checkpoint_names_the_files_that_any_process_found(tmp_path, root):
    run = make_config(tmp_path, root, data_parallel=[0, 1], max_steps=18, backup_every=0)
    run.run(expect=3, is_fresh=True)
    progress = json.loads((run.path / "checkpoint-18" / "progress.json").read_text())
    assert len(progress["unusable_files"]) > 10
    assert progress["unusable_files"] == run.results()["unusable_files"]
