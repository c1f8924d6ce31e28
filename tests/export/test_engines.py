"""Other engines and precisions: what they give, what is said of them, and what is refused."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_encoders import make_tiny
from tiny_wavlm import TINY_WAVLM

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.export import ExportOptions, embed_corpus, engines
from speaker_encoder.export.engines import _compare, _onnx, check_engine
from speaker_encoder.export.manifest import Provenance, read_manifest
from speaker_encoder.hub import onnx
from speaker_encoder.modeling.ecapa_frozen import FrozenEcapa

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def run(root: Path, encoder: SpeakerEncoder, name: str = "", **changes) -> torch.Tensor:
    """Exports eight real files, and gives their (8, D) embeddings."""
    for path in sorted(root.rglob("*.wav"))[8:]:
        path.unlink()
    folder = root.parent / (name or "out")
    options = ExportOptions(
        "mine", str(root), output_dir=str(folder), show_progress=False, **changes
    )
    embed_corpus(options, encoder=encoder)
    files = sorted(folder.rglob("*.mine_embedding"))
    return torch.cat([torch.load(path, weights_only=True) for path in files])


def said(caplog) -> str:
    (line,) = [r.getMessage() for r in caplog.records if "cosine with float32" in r.getMessage()]
    return line


@pytest.fixture(scope="module")
def wavlm() -> SpeakerEncoder:
    """A tiny WavLM with large weights."""
    torch.manual_seed(1)
    encoder = SpeakerEncoder.from_name(
        "wavlm-base-plus", pretrained=False, encoder_config=TINY_WAVLM
    )
    encoder.config.untrained_head = False
    return encoder.eval()


@pytest.fixture(scope="module")
def written(wavlm, tmp_path_factory) -> Path:
    """It as ONNX, which takes seconds."""
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    folder = tmp_path_factory.mktemp("onnx")
    onnx.write_onnx(wavlm, folder)
    return folder


def test_torch_takes_the_weights_as_they_stay(libritts, monkeypatch):
    embedded = []
    pool = FrozenEcapa._pool
    monkeypatch.setattr(FrozenEcapa, "_pool", lambda *given: embedded.append(given) or pool(*given))
    run(libritts, make_tiny(1))
    assert len(embedded) == 8
    run(libritts, make_tiny(1), "bf16", dtype="bfloat16")
    assert len(embedded) > 8  # what bfloat16 is compared with


@pytest.mark.slow
def test_onnx_gives_the_same_int8_nearly_and_neither_is_mixed_with_torch(
    libritts, wavlm, written, monkeypatch, caplog
):
    monkeypatch.setattr(
        onnx, "write_onnx", lambda _, to: shutil.copytree(written, to, dirs_exist_ok=True)
    )
    caplog.set_level(logging.INFO)
    expected = run(libritts, wavlm, "torch")
    exact = run(libritts, wavlm, "onnx", engine="onnx")
    assert 0 < (exact - expected).abs().max() <= 1e-4
    assert "--engine onnx: cosine with float32 on " in said(caplog)
    caplog.clear()
    found = run(libritts, wavlm, "int8", engine="onnx-int8")
    cosines = (found * expected).sum(dim=1)
    assert 0.98 < float(cosines.min()) < 1 - 1e-6
    assert (found - expected).abs().max() > 1e-4
    least = float(said(caplog).partition("least ")[2].partition(",")[0])
    assert any(least == pytest.approx(float(cosine), abs=2e-5) for cosine in cosines)
    folder = libritts.parent / "onnx"
    assert read_manifest(folder)["mine"]["embedding"]["engine"] == "onnx"
    with pytest.raises(UserError, match="engine: there 'onnx', now 'torch'"):
        run(libritts, wavlm, "onnx")


def test_of_bfloat16_it_is_said_how_like_float32_it_is(libritts, caplog):
    caplog.set_level(logging.INFO)
    encoder = make_tiny(1)
    expected = run(libritts, encoder, "float32")
    assert not [r for r in caplog.records if "cosine" in r.getMessage()]
    found = run(libritts, encoder, "bfloat16", dtype="bfloat16")
    cosines = (found * expected).sum(dim=1)
    assert "--dtype bfloat16: cosine with float32 on " in said(caplog)
    assert 0.99 < float(cosines.min()) < 1 - 1e-7
    assert float(said(caplog).rpartition(" ")[2]) == pytest.approx(float(cosines.mean()), abs=2e-3)


def test_what_gives_other_embeddings_is_refused():
    def exact(waveforms):
        return torch.tensor([[1.0, 0.0]])

    def other(waveforms):
        return torch.tensor([[0.8, 0.6]])

    def broken(waveforms):
        return torch.tensor([[torch.nan, 0.0]])

    text = "--engine fast: cosine with float32 on 2 utterances: least 0.80000; less than 0.95"
    with pytest.raises(UserError, match=text):
        _compare(other, exact, [None, None], "--engine fast")
    with pytest.raises(UserError, match="least nan"):
        _compare(broken, exact, [None], "--engine fast")
    _compare(exact, exact, [None], "--engine fast")
    _compare(other, exact, [], "--engine fast")


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_refusal_leaves_the_folder_as_it_was(libritts, monkeypatch):
    encoder, folder = make_tiny(1), libritts.parent / "out"
    with monkeypatch.context() as patch:
        patch.setattr(engines, "_LEAST_COSINE", 1.1)
        with pytest.raises(UserError, match="Leave --dtype bfloat16 out"):
            run(libritts, encoder, dtype="bfloat16")
    assert everything_in(folder) == {}
    expected = run(libritts, encoder)
    before = everything_in(folder)
    assert len(before) > 8
    with monkeypatch.context() as patch:
        patch.setattr(engines, "_LEAST_COSINE", 1.1)
        with pytest.raises(UserError, match="Leave --dtype bfloat16 out"):
            run(libritts, encoder, dtype="bfloat16", overwrite=True)
    assert everything_in(folder) == before
    assert torch.equal(run(libritts, encoder), expected)


def test_other_embeddings_are_refused_before_the_engine_is_opened(libritts, monkeypatch):
    encoder = make_tiny(1)
    run(libritts, encoder)

    def never(*given):
        raise AssertionError("opened")

    monkeypatch.setattr("speaker_encoder.export.run.open_engine", never)
    with pytest.raises(UserError, match="dtype: there 'float32', now 'bfloat16'"):
        run(libritts, encoder, dtype="bfloat16")


def write_speech(root: Path, data_dir: Path, seconds: float, count: int) -> Path:
    """Some files of one length, each the speech of another."""
    for number, path in enumerate(sorted((data_dir / "libritts").rglob("*.wav"))[:count]):
        speech, rate = soundfile.read(path, dtype="float32")
        target = root / "ab"[number % 2] / f"{number}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, np.resize(speech, int(seconds * rate)), rate)
    return root


@pytest.mark.parametrize(("seconds", "count", "compared"), [(61, 2, 2), (0.8, 10, 8)])
def test_it_is_compared_on_up_to_8_utterances_of_any_length(
    tmp_path, data_dir, monkeypatch, caplog, seconds, count, compared
):
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))
    root = write_speech(tmp_path / "corpus", data_dir, seconds, count)
    lengths, compare = [], engines._compare

    def note(engine, exact, waveforms, what):
        waveforms = list(waveforms)
        lengths.extend(len(waveform) for waveform in waveforms)
        compare(engine, exact, waveforms, what)

    monkeypatch.setattr(engines, "_compare", note)
    caplog.set_level(logging.INFO)
    options = ExportOptions("mine", str(root), output_dir=str(tmp_path / "out"), dtype="bfloat16")
    embed_corpus(options, encoder=make_tiny(1))
    assert lengths == [min(int(seconds * 16000), 15 * 16000)] * compared
    assert f"cosine with float32 on {compared} utterances" in said(caplog)


def test_the_compared_are_spread_over_all_lengths():
    units = [engines.Unit((0,), True), engines.Unit(tuple(range(1, 80)))]
    found = engines._spread(units)
    assert [index for index, _ in found] == [5, 15, 25, 35, 45, 55, 65, 75]
    assert engines._spread(units[:1]) == [(0, True)]


def test_that_nothing_can_be_compared_is_said(tmp_path, data_dir, monkeypatch, caplog):
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))
    root = write_speech(tmp_path / "corpus", data_dir, 2, 2)
    for path in root.rglob("*.wav"):
        soundfile.write(path, np.zeros(32000, np.float32), 16000)
    options = ExportOptions("mine", str(root), dtype="bfloat16", trim_silence="energy")
    with pytest.raises(UserError, match="All 2 files failed"):
        embed_corpus(options, encoder=make_tiny(1))
    (line,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "--dtype bfloat16: not compared with float32: none of" in line.getMessage()


def test_int8_refuses_batches():
    def check(engine, seconds):
        ExportOptions("m", "c", engine=engine, batch_seconds=seconds).check()

    with pytest.raises(
        UserError, match=r"one utterance at a time, found --batch_seconds 8: .* out"
    ):
        check("onnx-int8", 8.0)
    check("onnx-int8", 0.0)
    check("onnx-int8", None)
    check("onnx", 8.0)


@pytest.mark.slow
def test_int8_gets_each_utterance_and_each_window_by_itself(
    tmp_path, data_dir, wavlm, written, monkeypatch
):
    monkeypatch.setattr(
        onnx, "write_onnx", lambda _, to: shutil.copytree(written, to, dirs_exist_ok=True)
    )
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))
    root = write_speech(tmp_path / "corpus", data_dir, 2.5, 2)
    (long,) = write_speech(tmp_path / "long", data_dir, 61, 1).rglob("*.wav")
    long.rename(root / "a" / "long.wav")
    options = ExportOptions("mine", str(root), engine="onnx-int8", windows_seconds=1.0)
    sizes, embed = [], onnx.embed_with_onnx

    def note(session, waveforms):
        sizes.append(len(waveforms))
        return embed(session, waveforms)

    monkeypatch.setattr(onnx, "embed_with_onnx", note)
    assert embed_corpus(options, encoder=wavlm).num_utterances == 3
    assert set(sizes) == {1} and len(sizes) == 3 + 3 + 3 + 61
    with pytest.raises(AssertionError, match="of a batch"):
        _onnx(wavlm, options)([np.zeros(16000, np.float32)] * 2)


def test_engines_are_refused_where_they_do_not_serve():
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    encoder = make_tiny(1)
    float32, int8 = (ExportOptions("m", "c", engine=name) for name in ("onnx", "onnx-int8"))
    check_engine(encoder, float32, CPU)
    with pytest.raises(UserError, match="onnx computes on a CPU, found --model_device cuda"):
        check_engine(encoder, float32, CUDA)
    with pytest.raises(UserError, match=r"onnx-int8 is for wavlm encoders; the ecapa .*bfloat16"):
        check_engine(encoder, int8, CPU)
    encoder.config.encoder_kind = "resnet34"
    with pytest.raises(UserError, match="onnx is for ecapa, wavlm, dvector encoders; the resnet"):
        check_engine(encoder, float32, CPU)
    with pytest.raises(UserError, match="bfloat16 is for --engine torch, found onnx"):
        ExportOptions("m", "c", engine="onnx", dtype="bfloat16").check()
    with pytest.raises(UserError, match=r"Unknown --engine 'onyx'.*nearest: 'onnx'"):
        ExportOptions("m", "c", engine="onyx").check()


def test_stores_of_before_there_were_engines_are_gone_on_with():
    def identity(**changes):
        options = {"dtype": "float32", "windows_seconds": None, **changes}
        return Provenance({"weights_sha256": "0"}, options, {}).identity

    assert identity() == identity(engine="torch", space="own") == "0f52d5796156a86fa098f768ce5f4fe3"
    assert len({identity(), identity(engine="onnx"), identity(engine="onnx-int8")}) == 3
