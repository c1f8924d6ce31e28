"""Utterances are embedded once each, as `encode` embeds them, and remembered until they change."""

import os
import shutil

import numpy as np
import pytest
import soundfile
import torch

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.verification import embedding
from speaker_encoder.verification.embedding import embed_files, row_width
from speaker_encoder.verification.embedding_cache import EmbeddingCache
from speaker_encoder.verification.protocols import Protocol

TINY = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(1)
    model = SpeakerEncoder.from_name("ecapa", pretrained=False, encoder_config=TINY)
    model.config.untrained_head = False
    return model


@pytest.fixture
def files(tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))
    wavs = sorted((data_dir / "libritts").rglob("*.wav"))[:6]
    return [shutil.copy(wav, tmp_path / wav.name) for wav in wavs]


@pytest.fixture
def open_cache(encoder):
    def call(protocol=Protocol(), digest="some weights"):  # noqa: B008
        return EmbeddingCache(digest, {"protocol": str(protocol)}, row_width(encoder, protocol))

    return call


def test_whole_utterances_are_embedded_as_encode_does(encoder, files):
    found = embed_files(encoder, files, protocol=Protocol(), batch_size=4)
    assert found.vectors.shape == (6, 1, 24) and found.num_computed == 6
    assert np.abs(found.vectors[:, 0] - encoder.encode(files).numpy()).max() < 1e-5
    assert found.seconds == pytest.approx([soundfile.info(path).duration for path in files])
    raw = [encoder(torch.tensor(_at_16k(path))[None]).embeddings.norm().item() for path in files]
    assert found.norms == pytest.approx(raw, rel=1e-4)


def _at_16k(path):
    from speaker_encoder.audio import read_audio

    return read_audio(path, 16_000)


def test_windows_are_averaged(encoder, files):
    found = embed_files(encoder, files, protocol=Protocol.parse("windows:1:0.5"))
    waveform = _at_16k(files[0])
    windows = Protocol.parse("windows:1:0.5").segments(len(waveform), 16_000)
    rows = encoder.encode([waveform[a:b] for a, b in windows])
    mean = torch.nn.functional.normalize(rows.mean(0), dim=0)
    assert np.abs(found.vectors[0, 0] - mean.numpy()).max() < 1e-5


def test_crops_are_kept_apart_and_a_short_utterance_is_repeated(encoder, files, tmp_path):
    short = tmp_path / "short.wav"
    soundfile.write(short, _at_16k(files[0])[:12_000], 16_000)
    protocol = Protocol.parse("crops:3:1")
    found = embed_files(encoder, [str(short), files[1]], protocol=protocol)
    assert found.vectors.shape == (2, 3, 24)
    assert np.array_equal(found.vectors[0, 0], found.vectors[0, 2])
    repeated = np.pad(_at_16k(str(short)), (0, 4_000), "wrap")
    assert np.abs(found.vectors[0, 0] - encoder.encode(repeated)[0].numpy()).max() < 1e-5
    waveform = _at_16k(files[1])
    last = encoder.encode(waveform[len(waveform) - 16_000 :])[0].numpy()
    assert np.abs(found.vectors[1, 2] - last).max() < 1e-5


def test_long_recordings_are_read_in_parts(encoder, files, tmp_path, monkeypatch):
    waveform = np.concatenate([_at_16k(path) for path in files])
    soundfile.write(tmp_path / "long.wav", waveform, 16_000)
    whole = embed_files(
        encoder, [str(tmp_path / "long.wav")], protocol=Protocol("windows", 2, 1, 2)
    )
    monkeypatch.setattr(embedding, "_READ_WHOLE_SECONDS", 1.0)
    parts = embed_files(
        encoder, [str(tmp_path / "long.wav")], protocol=Protocol("windows", 2, 1, 2)
    )
    assert np.abs(whole.vectors - parts.vectors).max() < 1e-5


def test_the_second_time_nothing_is_computed(encoder, files, open_cache):
    first = embed_files(encoder, files, protocol=Protocol(), cache=open_cache())
    again = embed_files(encoder, files[::-1], protocol=Protocol(), cache=open_cache())
    assert again.num_computed == 0
    assert np.array_equal(again.vectors[::-1], first.vectors)
    assert np.array_equal(again.norms[::-1], first.norms)


def test_a_changed_file_other_weights_and_options_are_computed_again(encoder, files, open_cache):
    embed_files(encoder, files, protocol=Protocol(), cache=open_cache())
    soundfile.write(files[0], _at_16k(files[1])[:30_000], 16_000)
    changed = embed_files(encoder, files, protocol=Protocol(), cache=open_cache())
    assert changed.num_computed == 1
    assert np.abs(changed.vectors[0, 0] - encoder.encode(files[0])[0].numpy()).max() < 1e-5
    os.utime(files[1], ns=(1, 1))
    assert embed_files(encoder, files, protocol=Protocol(), cache=open_cache()).num_computed == 1
    other = open_cache(digest="other weights")
    assert embed_files(encoder, files, protocol=Protocol(), cache=other).num_computed == 6
    windows = Protocol.parse("windows:1:1")
    assert (
        embed_files(encoder, files, protocol=windows, cache=open_cache(windows)).num_computed == 6
    )


def test_a_cache_that_is_cut_or_damaged_at_any_place_gives_no_wrong_embedding(
    encoder, files, open_cache, tmp_path
):
    wanted = embed_files(encoder, files, protocol=Protocol(), cache=open_cache())
    folder = open_cache().folder
    rng = np.random.default_rng(0)
    originals = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert originals
    for _ in range(25):
        for path, content in originals.items():
            damaged = bytearray(content)
            for position in rng.integers(0, len(damaged), 3):
                damaged[position] = int(rng.integers(0, 256))
            path.write_bytes(bytes(damaged)[: int(rng.integers(1, len(damaged) + 1))])
        for path in set(folder.iterdir()) - set(originals):
            path.unlink()
        found = embed_files(encoder, files, protocol=Protocol(), cache=open_cache())
        assert np.abs(found.vectors - wanted.vectors).max() < 1e-5
        assert found.seconds == pytest.approx(wanted.seconds)


def test_a_cache_that_cannot_be_written_is_no_error(encoder, files, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "file"))
    cache = EmbeddingCache("x", {}, row_width(encoder, Protocol()))
    assert embed_files(encoder, files, protocol=Protocol(), cache=cache).num_computed == 6
    assert "cannot be cached" in caplog.text


def test_every_bad_file_is_named_before_anything_is_embedded(encoder, files, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "tiny.wav", np.zeros(100), 16_000)
    paths = [files[0], str(tmp_path / "empty.wav"), str(tmp_path / "tiny.wav")]
    with pytest.raises(UserError) as caught:
        embed_files(encoder, paths, protocol=Protocol(), label=lambda i: f"line {i + 1}: {i}")
    assert "2 audio files cannot be embedded" in str(caught.value)
    assert "line 2: 1:" in str(caught.value) and "line 3: 2: 0.006 s" in str(caught.value)


def test_a_crop_that_is_too_short_for_the_encoder_is_refused(encoder, files):
    with pytest.raises(UserError, match=r"this encoder needs at least .* s, found 0.001 s"):
        embed_files(encoder, files, protocol=Protocol.parse("crops:2:0.001"))


def test_an_embedding_that_is_not_finite_is_refused_and_not_kept(files, open_cache, encoder):
    import copy

    broken = copy.deepcopy(encoder)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="the encoder's embedding is not finite"):
        embed_files(broken, files, protocol=Protocol(), cache=open_cache())
    assert not open_cache().get(files)
