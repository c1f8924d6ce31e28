"""ONNX files give PyTorch's embeddings at any length and batch size, padded or not."""

import importlib.util

import numpy as np
import pytest
import torch
from exported_encoders import VARIANTS, make_noise, make_variant

from speaker_encoder import SpeakerEncoderFeatureExtractor
from speaker_encoder.errors import UserError
from speaker_encoder.hub.onnx import check_onnx, embed_with_onnx, open_session, write_onnx
from speaker_encoder.hub.onnx_graphs import (
    FEWEST_NEW,
    GRAPHS,
    STEP_SAMPLES,
    ConvolvedPowerMel,
    EncoderGraph,
)
from speaker_encoder.modeling.dvector import num_partials
from speaker_encoder.modeling.mel import PowerMel, mel_filters_slaney
from speaker_encoder.modeling.registry import BACKBONES

pytest.importorskip("onnxruntime", reason="pip install 'speaker-encoder[onnx]'")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports each variant once."""
    made = {}

    def export(variant):
        if variant not in made:
            folder = tmp_path_factory.mktemp(variant)
            encoder = make_variant(variant)
            checks = write_onnx(encoder, folder)
            made[variant] = encoder, folder, checks
        return made[variant]

    return export


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ecapa", "wavlm-base-sv", "dvector"])
def test_any_batch_and_length_gives_pytorchs_embeddings(exported, variant):
    encoder, folder, checks = exported(variant)
    assert max(check.difference for check in checks) < 1e-5
    assert {len(check.num_samples) for check in checks} == {1, 2, 3, 5}
    session = open_session(folder / "model.onnx")
    least = encoder.min_num_samples
    alone = [make_noise(n, seed) for seed, n in enumerate((least, least + 1, 16001, 52_341))]
    expected = encoder.encode(alone).numpy()
    padded = embed_with_onnx(session, alone)
    singly = np.concatenate([embed_with_onnx(session, [waveform]) for waveform in alone])
    assert np.abs(padded - expected).max() < 1e-5
    assert np.abs(singly - expected).max() < 1e-5
    assert np.abs(expected[0] - expected[2]).max() > 1e-3  # the embeddings do differ
    seven = embed_with_onnx(session, [make_noise(20_000, seed) for seed in range(7)])
    assert seven.shape == (7, encoder.embedding_dim)


@pytest.mark.slow
def test_the_feature_extractors_output_is_the_input(exported):
    encoder, folder, _ = exported("dvector")
    waveforms = [make_noise(9000), make_noise(30_000)]
    extractor = SpeakerEncoderFeatureExtractor.from_pretrained(folder)
    inputs = extractor(waveforms, sampling_rate=16000, return_tensors="np")
    session = open_session(folder / "model.onnx")
    (embeddings,) = session.run(None, dict(inputs))
    np.testing.assert_allclose(embeddings, encoder.encode(waveforms).numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_file_says_what_it_is(exported):
    encoder, folder, _ = exported("ecapa")
    session = open_session(folder / "model.onnx")
    described = session.get_modelmeta().custom_metadata_map
    assert described["encoder_kind"] == "ecapa"
    assert described["sampling_rate"] == "16000"
    assert described["min_num_samples"] == str(encoder.min_num_samples)
    assert [one.shape for one in session.get_inputs()] == [["batch", "num_samples"]] * 2
    assert [one.shape for one in session.get_outputs()] == [["batch", encoder.embedding_dim]]


@pytest.mark.slow
def test_another_encoders_file_is_refused(exported):
    encoder, folder, _ = exported("dvector")
    other = make_variant("dvector")
    other.backbone.linear.weight.data += 0.001
    with pytest.raises(UserError, match="gives other embeddings than PyTorch"):
        check_onnx(other, folder / "model.onnx")
    check_onnx(encoder, folder / "model.onnx", batches=((0.3,),))


@pytest.mark.slow
def test_the_encoder_is_left_as_it_was(tmp_path):
    encoder = make_variant("dvector").to(torch.bfloat16)
    encoder.train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    checks = write_onnx(encoder, tmp_path)
    assert max(check.difference for check in checks) < 1e-5  # computed in float32
    assert encoder.training and encoder.dtype == torch.bfloat16
    after = encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_graph_is_of_a_family():
    assert set(GRAPHS) <= set(BACKBONES)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "dvector"])
def test_graphs_compute_the_same_in_pytorch(variant):
    encoder = make_variant(variant)
    graph = EncoderGraph(encoder).eval()
    waveforms = [make_noise(encoder.min_num_samples), make_noise(30_000), make_noise(17_777)]
    rows = [torch.from_numpy(waveform) for waveform in waveforms]
    input_values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(input_values.shape[1]) < lengths[:, None]).int()
    with torch.no_grad():
        embeddings = graph(input_values, mask)
    assert (embeddings - encoder.encode(waveforms)).abs().max() < 1e-5


@pytest.mark.parametrize(("win_length", "n_fft"), [(400, 400), (400, 512), (321, 400)])
def test_the_convolution_is_the_fourier_transform(win_length, n_fft):
    filters = mel_filters_slaney(40, n_fft, 16000)
    power_mel = PowerMel(torch.hann_window(win_length), filters, 160, n_fft)
    waveforms = torch.from_numpy(np.stack([make_noise(8003, 1), make_noise(8003, 2)]))
    expected = power_mel(waveforms)
    found = ConvolvedPowerMel(power_mel)(waveforms)
    assert found.shape == expected.shape
    assert ((found - expected).abs() <= 1e-4 * expected + 1e-9).all()


def test_the_formula_counts_the_windows_of_a_d_vector():
    lengths = torch.arange(400, 120_000)
    counts = ((lengths - FEWEST_NEW) // STEP_SAMPLES + 1).clamp(min=1)
    assert counts.tolist() == [num_partials(length) for length in lengths.tolist()]


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    encoder = make_variant("dvector")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    wanted = r"needs onnxscript, .* pip install 'speaker-encoder\[onnx\]'"
    with pytest.raises(UserError, match=wanted):
        write_onnx(encoder, tmp_path)


def test_an_untrained_head_is_refused(tmp_path):
    encoder = make_variant("dvector")
    encoder.config.untrained_head = True
    with pytest.raises(UserError, match="random weights"):
        write_onnx(encoder, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(UserError, match="cannot be run by ONNX Runtime"):
        open_session(path)
    path.write_bytes(b"not a graph")
    with pytest.raises(UserError, match="cannot be run by ONNX Runtime"):
        open_session(path)
