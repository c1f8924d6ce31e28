"""Other engines and precisions: what they give, what is said of them, and what is refused."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from tiny_encoders import make_tiny
from tiny_wavlm import TINY_WAVLM

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.export import ExportOptions, embed_corpus
from speaker_encoder.export.engines import _compare, check_engine
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
