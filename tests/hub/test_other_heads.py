"""Encoders that are in no other library: they are published in our own form alone."""

import pytest
from exported_encoders import VARIANTS, make_noise

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.hub.check import embed_forms
from speaker_encoder.hub.onnx_graphs import EncoderGraph
from speaker_encoder.hub.upstream_forms import (
    upstream_form,
    write_transformers_form,
    write_upstream_form,
)
from speaker_encoder.modeling import SpeakerEncoderConfig

_WAVLM = VARIANTS["wavlm-base"][1]


def _wavlm(**changes):
    return SpeakerEncoderConfig(encoder_kind="wavlm", encoder_config={**_WAVLM, **changes})


def test_form_follows_from_the_head_and_the_layers():
    forms = {
        "transformers": [_wavlm(), _wavlm(layers="weighted_sum"), _wavlm(head="xvector")],
        None: [
            _wavlm(layers=1),
            *(_wavlm(head=name) for name in ("mean", "mhfa", "ecapa", "attentive_statistics")),
            SpeakerEncoderConfig(encoder_kind="hubert", encoder_config={"num_hidden_layers": 1}),
        ],
    }
    for form, configs in forms.items():
        for config in configs:
            assert upstream_form(SpeakerEncoder(config).config) == form, config.encoder_config
    before_heads = {"use_weighted_layer_sum": True}
    config = SpeakerEncoderConfig(encoder_kind="wavlm", encoder_config=before_heads)
    assert upstream_form(config) == "transformers"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "mean"}, "family 'wavlm' with the mean head on layers 'last'. It has no other"),
        ({"layers": 1}, "family 'wavlm' with the xvector head on layers 1. It has no other"),
    ],
)
def test_what_transformers_does_not_know_is_published_in_our_form_alone(tmp_path, changes, message):
    encoder = SpeakerEncoder(_wavlm(**changes)).eval()
    with pytest.raises(UserError, match=message):
        write_transformers_form(encoder, tmp_path / "transformers")
    encoder.save_pretrained(tmp_path)
    assert not write_upstream_form(encoder, tmp_path)
    assert not (tmp_path / "transformers").exists()
    waveform = make_noise(16000)
    (embeddings,) = embed_forms(tmp_path, "wavlm", [waveform]).values()
    expected = encoder.encode(waveform, allow_untrained_head=True).numpy()
    assert abs(embeddings - expected).max() <= 1e-6


def test_ecapa_head_has_no_graph():
    with pytest.raises(UserError, match="with the ecapa head has no ONNX graph"):
        EncoderGraph(SpeakerEncoder(_wavlm(head="ecapa")))
