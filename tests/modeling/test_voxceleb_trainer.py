"""The encoders of voxceleb_trainer: their checkpoints and their numbers."""

import pytest
import torch
from voxceleb_trainer_files import make_weights, write_checkpoint

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.rawnet3 import SincFilters
from speaker_encoder.modeling.registry import backbone_class
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.build import build_model, check_model

# Case -> shapes that differ from the fixture's, parameters of the original class, and the first
# values of the L2-normalised embedding that the original class (commit f51bab8 of its repository,
# torchaudio 2.11) gives of waveform(24321) with the same weights. Res2Net's is of commit 5475b0a
# with its two slips mended.
ORIGINALS = {
    "resnetse34l": (
        {},
        1_437_078,
        [-0.037565, 0.033734, -0.000699, 0.010217, 0.028451, 0.043562],
    ),
    "resnetse34l-asp": (
        {"torchfb.mel_scale.fb": [257, 64], "fc.weight": [512, 256]},
        1_502_614,
        [-0.064, 0.020335, 0.050129, 0.01992, -0.046353, 0.018269],
    ),
    "resnetse34v2": (
        {},
        8_028_492,
        [-0.015754, 0.10505, -0.041567, 0.022479, -0.027883, 0.038856],
    ),
    "resnetse34v2-sap": (
        {
            "torchfb.1.mel_scale.fb": [257, 40],
            "attention.0.weight": [128, 1280, 1],
            "attention.3.weight": [1280, 128, 1],
            "attention.3.bias": [1280],
            "fc.weight": [512, 1280],
        },
        6_389_324,
        [0.010188, -0.026603, -0.06737, 0.075747, -0.033578, -0.046289],
    ),
    "vggvox40": (
        {},
        4_032_448,
        [-0.01543, 0.127434, -0.093402, -0.054928, -0.010678, -0.037681],
    ),
    "vggvox40-tap": (
        {"attention": None, "sap_linear.weight": None, "sap_linear.bias": None},
        3_769_280,
        [-0.008231, 0.118521, -0.102903, -0.053296, -0.00798, -0.028733],
    ),
    "vggvox40-max": (
        {"attention": None, "sap_linear.weight": None, "sap_linear.bias": None},
        3_769_280,
        [-0.005193, 0.121037, -0.102651, -0.049133, -0.010106, -0.032312],
    ),
    "rawnet3": (
        {},
        16_280_322,
        [0.006955, -0.053682, -0.004902, 0.116399, 0.021678, 0.021198],
    ),
    "rawnet3-asp": (
        {"attention.3.weight": [1, 128, 1], "attention.3.bias": [1]},
        16_082_307,
        [-0.011838, -0.056512, -0.015199, 0.116208, 0.014249, 0.046301],
    ),
    "res2netse34": (
        {},
        11_129_515,
        [-0.006251, 0.000633, -0.008712, -0.039394, 0.041542, 0.005246],
    ),
    "res2netse34-asp": (
        {"fc.weight": [512, 10240]},
        13_750_955,
        [-0.005222, -0.004477, 0.035798, 0.038208, -0.006853, 0.092302],
    ),
}
TOLD = {"vggvox40-tap": {"encoder_type": "TAP"}, "vggvox40-max": {"encoder_type": "MAX"}}
# RawNet3's two norms that its forward pass leaves out: weight and bias of 256 values each.
UNUSED_PARAMETERS = {"rawnet3": 4 * 256}


@pytest.mark.parametrize("case", ORIGINALS)
def test_checkpoint_gives_the_embeddings_and_the_size_of_the_original(case, tmp_path, waveform):
    changed, num_parameters, expected = ORIGINALS[case]
    kind = case.split("-")[0]
    path = write_checkpoint(tmp_path / "published.model", make_weights(kind, changed))
    encoder = SpeakerEncoder.from_name(str(path), encoder_config=TOLD.get(case))
    found = encoder.encode(waveform(24321))[0]
    torch.testing.assert_close(found[:6], torch.tensor(expected), atol=1e-4, rtol=0)
    counted = sum(parameter.numel() for parameter in encoder.parameters())
    assert counted == num_parameters - UNUSED_PARAMETERS.get(kind, 0)
    assert encoder.config.encoder_kind == kind
    assert encoder.config.base_model_name == "published.model"  # not its place on this machine
    assert encoder.config.source_license is None
    assert not encoder.config.untrained_head


@pytest.mark.parametrize(
    ("kind", "num_parameters"),
    [
        ("resnetse34l", 1_437_078),
        ("resnetse34v2", 8_028_492),
        ("vggvox40", 4_032_448),
        ("res2netse34", 11_129_515),
    ],
)
def test_defaults_from_scratch_are_the_published_architectures(kind, num_parameters):
    encoder = SpeakerEncoder.from_name(kind, pretrained=False)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == num_parameters
    assert encoder.embedding_dim == 512


def test_defaults_of_rawnet3_are_those_of_its_recipe():
    with torch.device("meta"):
        backbone = backbone_class("rawnet3")({})
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 16_280_322 - 1024
    assert backbone.embedding_dim == 256


def _of_several_gpus(weights):
    return {f"module.__S__.{name}": tensor for name, tensor in weights.items()}


def _with_the_optimizer(weights):
    state = {f"__S__.{name}": tensor for name, tensor in weights.items()}
    return {"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "epoch": 3}


def _as_rawnet3_is_published(weights):
    return {"model": weights}


@pytest.mark.parametrize(
    "form",
    [_of_several_gpus, _with_the_optimizer, _as_rawnet3_is_published],
    ids=lambda f: f.__name__,
)
def test_all_forms_of_a_checkpoint_hold_the_same(form, tmp_path):
    weights = make_weights("vggvox40", {})
    torch.save(form(weights), tmp_path / "model.pt")
    expected = SpeakerEncoder.from_pretrained(write_checkpoint(tmp_path / "bare.model", weights))
    found = SpeakerEncoder.from_pretrained(tmp_path / "model.pt")
    assert all(
        torch.equal(tensor, expected.state_dict()[name])
        for name, tensor in found.state_dict().items()
    )


def test_window_of_the_checkpoint_is_used(tmp_path):
    """The front-end of Fast ResNet-34 changed its window after checkpoints had been published."""
    weights = make_weights("resnetse34l", {})
    weights["torchfb.spectrogram.window"] = torch.hann_window(400)
    encoder = SpeakerEncoder.from_pretrained(write_checkpoint(tmp_path / "old.model", weights))
    assert torch.equal(encoder.backbone.mel.power.window, torch.hann_window(400))


def test_constants_that_a_checkpoint_lacks_are_the_usual_ones(tmp_path):
    weights = make_weights("resnetse34l", {})
    del weights["torchfb.spectrogram.window"], weights["torchfb.mel_scale.fb"]
    weights = {n: t for n, t in weights.items() if not n.endswith("num_batches_tracked")}
    encoder = SpeakerEncoder.from_pretrained(write_checkpoint(tmp_path / "x.model", weights))
    assert encoder.config.encoder_config["n_mels"] == 40
    assert torch.equal(encoder.backbone.mel.power.window, torch.hamming_window(400))


def test_folder_with_one_checkpoint_and_its_card(tmp_path, waveform):
    write_checkpoint(tmp_path / "baseline.model", make_weights("vggvox40", {}))
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    encoder = SpeakerEncoder.from_pretrained(tmp_path)
    assert encoder.config.source_license == "mit"
    encoder.save_pretrained(tmp_path / "own")
    own = SpeakerEncoder.from_pretrained(tmp_path / "own")
    assert torch.equal(own.encode(waveform(16000)), encoder.encode(waveform(16000)))


def test_checkpoint_that_is_not_unambiguous_asks(tmp_path):
    weights = make_weights("vggvox40", ORIGINALS["vggvox40-tap"][0])
    path = write_checkpoint(tmp_path / "x.model", weights)
    with pytest.raises(
        UserError, match=r"of a vggvox40 but do not tell its encoder_type\. Tell it as"
    ):
        SpeakerEncoder.from_pretrained(path)
    with pytest.raises(UserError, match=r"SAP, TAP, MAX, found 'MEAN'"):
        SpeakerEncoder.from_name(str(path), encoder_config={"encoder_type": "MEAN"})
    encoder = SpeakerEncoder.from_name(
        str(path), encoder_config={"encoder_type": "TAP", "log_input": False}
    )
    assert encoder.config.encoder_config["log_input"] is False
    assert not encoder.backbone.mel.log_input


@pytest.mark.parametrize(
    ("kind", "told", "expected"),
    [
        (
            "vggvox40",
            {"log_input": True},
            "log_input taken as true: say encoder_config.log_input false if it was trained without",
        ),
        (
            "rawnet3",
            {"sinc_stride": 10},
            "sinc_stride taken as 10: say encoder_config.sinc_stride if it was trained with",
        ),
    ],
)
def test_what_leaves_no_trace_is_taken_for_granted_with_a_warning(
    kind, told, expected, tmp_path, caplog
):
    path = write_checkpoint(tmp_path / "x.model", make_weights(kind, {}))
    SpeakerEncoder.from_name(str(path), encoder_config=told)
    assert not caplog.records
    encoder = SpeakerEncoder.from_pretrained(path)
    assert encoder.config.encoder_config.items() >= told.items()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert expected in record.getMessage()
    caplog.clear()
    if kind == "rawnet3":  # as it is published, with the default
        write_checkpoint(tmp_path / "hub.pt", make_weights(kind, {})).rename(tmp_path / "model.pt")
        SpeakerEncoder.from_pretrained(tmp_path / "model.pt")
        assert not caplog.records


def test_a_training_config_tells_what_a_checkpoint_does_not(tmp_path):
    weights = make_weights("vggvox40", ORIGINALS["vggvox40-tap"][0])
    path = write_checkpoint(tmp_path / "x.model", weights)
    values = {"train_data_root": str(tmp_path), "window_size_s": 2.0, "pretrained": True}
    told = {"model_name": str(path), "encoder_config": {"encoder_type": "TAP"}}
    config = TrainConfig.from_dict({**values, **told})
    check_model(config)
    model = build_model(config, num_speakers=2)
    assert model.config.encoder_config["encoder_type"] == "TAP"
    assert model.config.base_model_name == "x.model"
    with pytest.raises(UserError, match="a pretrained encoder has its own"):
        TrainConfig.from_dict({**values, **told, "model_name": "rawnet3"})


def test_what_the_weights_contradict_is_refused(tmp_path):
    path = write_checkpoint(tmp_path / "x.model", make_weights("vggvox40", {}))
    with pytest.raises(UserError, match=r"encoder_config says n_out 256, but .* n_out 512. Leave"):
        SpeakerEncoder.from_name(str(path), encoder_config={"n_out": 256})
    with pytest.raises(UserError, match=r"Unknown key 'nOut'.*Did you mean 'n_out'"):
        SpeakerEncoder.from_name(str(path), encoder_config={"nOut": 512})


def test_incomplete_checkpoints(tmp_path):
    weights = make_weights("vggvox40", {})
    del weights["netcnn.8.weight"]
    path = write_checkpoint(tmp_path / "x.model", weights)
    with pytest.raises(UserError, match=r"do not fit its architecture; missing: .*netcnn.8.weight"):
        SpeakerEncoder.from_pretrained(path)
    del weights["fc.weight"]
    write_checkpoint(path, weights)
    with pytest.raises(UserError, match=r"look like a vggvox40, but 'fc\.weight' is missing"):
        SpeakerEncoder.from_pretrained(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"x\.model (cannot be read|is refused)"):
        SpeakerEncoder.from_pretrained(path)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"__S__.fc.weight": Trap()}, tmp_path / "x.model")
    with pytest.raises(UserError, match="is refused"):
        SpeakerEncoder.from_pretrained(tmp_path / "x.model")
    assert not (tmp_path / "ran").exists()


def test_folder_with_several_checkpoints(tmp_path):
    for step in (10, 20):
        (tmp_path / f"model0000000{step}.model").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 2 checkpoints.*Name one of them: .*20\.model"):
        SpeakerEncoder.from_pretrained(tmp_path)


def test_file_that_is_another_model(tmp_path):
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "x.model")
    with pytest.raises(UserError, match="is a file, and no checkpoint of voxceleb_trainer"):
        SpeakerEncoder.from_pretrained(tmp_path / "x.model")


@pytest.mark.parametrize("kind", ["resnetse34l", "resnetse34v2", "vggvox40", "res2netse34"])
def test_names_without_published_weights(kind):
    with pytest.raises(UserError, match=f"No weights are published for '{kind}'. Set pretrained"):
        SpeakerEncoder.from_pretrained(kind)


@pytest.mark.parametrize(
    ("kind", "encoder_config", "message"),
    [
        ("resnetse34l", {"encoder_type": "TAP"}, "one of SAP, ASP, found 'TAP'"),
        ("resnetse34l", {"num_filters": [16, 32]}, "must be 4 numbers each"),
        ("resnetse34l", {"num_filters": [4, 8, 8, 8]}, "at least 8 each"),
        ("resnetse34l", {"n_mels": 0}, "'n_mels' in encoder_config of .* at least 1, found 0"),
        ("vggvox40", {"n_out": -3}, "'n_out' in encoder_config of .* at least 1, found -3"),
        ("rawnet3", {"sinc_stride": 0}, "'sinc_stride' in encoder_config of .* at least 1, found"),
        ("resnetse34v2", {"n_mels": 60}, "n_mels must be a multiple of 8, found 60"),
        ("res2netse34", {"scale": 1}, "scale must be at least 2"),
        ("rawnet3", {"channels": 1000, "model_scale": 7}, "multiple of 8 and of model_scale"),
    ],
)
def test_architectures_that_do_not_fit(kind, encoder_config, message):
    with pytest.raises(UserError, match=message):
        SpeakerEncoder.from_name(kind, pretrained=False, encoder_config=encoder_config)


def test_sinc_filters_equal_those_of_asteroid():
    """Values of ``asteroid_filterbanks.ParamSincFB(256, 251, stride=10)``, version 0.4.0."""
    sinc = SincFilters(256, 16000)
    places = [0, 64, 127]
    expected = torch.tensor([30.000019, 1805.593384, 7735.869141])
    torch.testing.assert_close(sinc.low_hz[places, 0].detach(), expected, atol=2e-3, rtol=0)
    expected = torch.tensor([14.202930, 48.749634, 164.131348])
    torch.testing.assert_close(sinc.band_hz[places, 0].detach(), expected, atol=2e-3, rtol=0)
    expected = torch.tensor(
        [
            [0.0360768, -0.4380396, 0.9988597, 1.0, 0.9988597, 0.0360768],
            [0.0160654, -0.0268299, 0.7328441, 1.0, 0.7328441, 0.0160654],
            [0.0067351, 0.0682045, -0.9986774, 1.0, -0.9986774, 0.0067351],
            [0.0357191, -0.1260328, -0.0439989, 0.0, 0.0439989, -0.0357191],
            [-0.0135475, -0.1089813, -0.7915785, 0.0, 0.7915785, 0.0135475],
            [-0.0111556, -0.0295382, -0.0420132, 0.0, 0.0420132, 0.0111556],
        ]
    )
    rows = sinc.filters()[[0, 64, 127, 128, 200, 255], 0]
    found = rows[:, [0, 60, 124, 125, 126, 250]].detach()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
