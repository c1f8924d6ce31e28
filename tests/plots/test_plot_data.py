from pathlib import Path

import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.plots.plot_data import choose, read_for_plot


def test_choosing_draws_speakers_and_utterances() -> None:
    speakers = [f"s{i % 5}" for i in range(30)]
    assert choose(speakers, None, None, seed=0) == list(range(30))
    assert choose(speakers, 9, 9, seed=0) == list(range(30))
    chosen = choose(speakers, 2, 3, seed=1)
    assert chosen == sorted(chosen) == choose(speakers, 2, 3, seed=1)
    names = [speakers[i] for i in chosen]
    assert len(set(names)) == 2
    assert all(names.count(name) == 3 for name in set(names))
    assert {tuple(choose(speakers, 2, 3, seed=s)) for s in range(5)} != {tuple(chosen)}
    for limits in ((0, None), (None, -1)):
        with pytest.raises(UserError, match="must be at least 1"):
            choose(speakers, *limits, seed=0)


def save(path: Path, **arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_stored_embeddings_with_speakers(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    (tmp_path / "a1.wav").write_bytes(b"")
    path = save(
        tmp_path / "x.npz", embeddings=rows, paths=["a1.wav", "a2.wav", "b1.wav", "b2.wav"],
        speaker_ids=["a", "a", "b", "b"],
    )  # fmt: skip
    data = read_for_plot(path)
    assert data.utterance_ids == ["a1", "a2", "b1", "b2"]
    assert data.speakers == ["a", "b"]
    assert data.paths == [str(tmp_path / "a1.wav"), None, None, None]
    assert np.array_equal(data.embeddings, rows)
    assert data.left_out == {}
    assert len(read_for_plot(path, max_speakers=1, max_utterances=1)) == 1


def test_unknown_speakers_are_refused_or_found_in_the_corpus(
    tmp_path: Path, data_dir: Path
) -> None:
    root = data_dir / "vctk"
    files = sorted(root.glob("wav48_silence_trimmed/*/*.flac"))[:3]
    ids = [str(file.relative_to(root).with_suffix("")) for file in files]
    path = save(tmp_path / "x.npz", embeddings=np.eye(4), utterance_ids=[*ids, "elsewhere"])
    with pytest.raises(
        UserError, match=r"Nothing tells who speaks in the 4 utterances.*--data_root"
    ):
        read_for_plot(path)
    data = read_for_plot(path, str(root))
    assert data.speaker_ids == [file.parent.name for file in files]
    assert data.paths == [str(file) for file in files]
    assert data.left_out == {"of an unknown speaker": 1}
