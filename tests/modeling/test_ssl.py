"""Speech encoders of transformers: upstream's numbers on one utterance, the same in a batch."""

import copy
import functools
import json

import numpy as np
import pytest
import torch
import transformers
from ssl_models import (
    FAMILIES,
    feature_extractor,
    make_upstream,
    model_class,
    upstream_encoder,
    upstream_input,
    write_folder,
)
from torch.nn.functional import normalize
from transformers import SeamlessM4TFeatureExtractor, WhisperFeatureExtractor
from wavlm_models import make_waveform, pad_batch

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.w2v_bert import KaldiLogMel
from speaker_encoder.modeling.whisper import WhisperBackbone, WhisperLogMel

every_family = pytest.mark.parametrize("name", FAMILIES)
XVECTOR_FAMILIES = [
    *("wav2vec2-base", "wav2vec2-large", "unispeech-sat-base", "unispeech-sat-large"),
    *("data2vec-audio", "w2v-bert"),
]
WEIGHTS = ("weight", "bias")
NUM_SAMPLES = 20160  # an even number of mel frames for each front-end


SMALL_ECAPA = {
    "name": "ecapa",
    "channels": [16, 16, 16, 16, 48],
    "attention_channels": 8,
    "se_channels": 8,
    "lin_neurons": 12,
}
CHOICES = [(SMALL_ECAPA, "weighted_sum"), ("mhfa", None), ("attentive_statistics", 1)]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads what transformers saved: (its model, our own copy of it)."""

    @functools.lru_cache
    def loaded(name, part, changes):
        upstream = make_upstream(name, part, **dict(changes))
        folder = write_folder(upstream, name, tmp_path_factory.mktemp("upstream") / name)
        return upstream, SpeakerEncoder.from_pretrained(folder)

    def load(name, part="Model", **changes):
        upstream, encoder = loaded(name, part, tuple(changes.items()))
        return upstream, copy.deepcopy(encoder)

    return load


@every_family
def test_every_choice_of_layers_equals_upstream(name, load):
    upstream, encoder = load(name)
    assert encoder.config.untrained_head  # the x-vector head
    assert encoder.config.do_normalize is getattr(feature_extractor(name), "do_normalize", False)
    waveform = make_waveform(NUM_SAMPLES)
    inputs = upstream_input(name, waveform)
    with torch.inference_mode():
        output = upstream_encoder(upstream, name, inputs.shape[-1] // 2)(
            inputs, output_hidden_states=True
        )
    states = output.hidden_states
    expected = {
        "weighted_sum": torch.stack(states).mean(dim=0),  # the weights of a new sum are equal
        "last": output.last_hidden_state,
        len(states) - 1: states[-1],
        1: states[1],
        0: states[0],
    }
    for layers, frames in expected.items():
        encoder.replace_head("mean", layers)
        assert not encoder.config.untrained_head
        with torch.inference_mode():
            found = encoder(torch.from_numpy(waveform)[None]).embeddings
        assert (found - frames.mean(dim=1)).abs().max() <= 1e-4 * max(1.0, frames.abs().max())
        assert (normalize(found) - normalize(frames.mean(dim=1))).abs().max() <= 1e-5
    with pytest.raises(UserError, match="cut off behind layer 0"):
        encoder.replace_head(layers=1)


@pytest.mark.parametrize(
    ("name", "head", "layers"),
    [
        *((name, "xvector", "last") for name in FAMILIES),
        *(("wav2vec2-base", *choice) for choice in CHOICES),
        *(("whisper", *choice) for choice in CHOICES),
    ],
)
def test_batch_equals_single(name, head, layers, load):
    _, encoder = load(name)
    torch.manual_seed(3)
    encoder.replace_head(head, layers)
    lengths = [encoder.min_num_samples, 6400, 16320, 20000, 50001]
    waveforms = [make_waveform(length) for length in lengths]
    alone = torch.cat([encoder.encode(one, allow_untrained_head=True) for one in waveforms])
    together = encoder.encode(waveforms, allow_untrained_head=True)
    assert (together - alone).abs().max() <= 1e-5
    assert (alone[1] - alone[2]).abs().max() > 1e-3  # embeddings say something
    input_values, row_lengths = pad_batch(waveforms)
    mask = torch.arange(input_values.shape[1]) < row_lengths[:, None]
    with torch.inference_mode():
        raw = encoder(input_values, mask).embeddings
    assert (normalize(raw, dim=-1) - alone).abs().max() <= 1e-5


@pytest.mark.parametrize("is_sum", [False, True])
@pytest.mark.parametrize("name", XVECTOR_FAMILIES)
def test_xvector_folder_gives_upstreams_embeddings(name, is_sum, load):
    upstream, encoder = load(name, "ForXVector", use_weighted_layer_sum=is_sum)
    assert not encoder.config.untrained_head
    assert encoder.embedding_dim == 24
    assert encoder.config.encoder_config["layers"] == ("weighted_sum" if is_sum else "last")
    waveform = make_waveform(NUM_SAMPLES)
    with torch.inference_mode():
        expected = normalize(upstream(upstream_input(name, waveform)).embeddings)
    assert (encoder.encode(waveform) - expected).abs().max() <= 1e-4
    own = {f"{prefix}.{part}" for prefix in ("classifier", "objective") for part in WEIGHTS}
    assert upstream.state_dict().keys() - encoder.backbone.state_dict().keys() <= own


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("wav2vec2-base", "ForPreTraining"),
        ("wav2vec2-large", "ForCTC"),
        ("hubert-base", "ForCTC"),
        ("unispeech-sat-base", "ForPreTraining"),
        ("data2vec-audio", "ForCTC"),
        ("w2v-bert", "ForSequenceClassification"),
        ("whisper", "ForConditionalGeneration"),
        ("whisper", "ForAudioClassification"),
    ],
)
def test_encoder_is_taken_out_of_every_other_model(name, part, load):
    changes = {} if name.startswith(("whisper", "w2v", "data2vec")) else {"vocab_size": 20}
    upstream, encoder = load(name, part, **changes)
    assert encoder.config.untrained_head
    prefix = FAMILIES[name].prefix
    base = upstream.model.encoder if part == "ForConditionalGeneration" else upstream
    base = base if part == "ForConditionalGeneration" else getattr(upstream, prefix)
    own = encoder.backbone.state_dict()
    for weight_name, tensor in base.state_dict().items():
        assert torch.equal(own[f"{prefix}.{weight_name}"], tensor), weight_name


@every_family
def test_training_reaches_every_parameter_and_checkpointing_changes_no_gradient(name, load):
    _, encoder = load(name)
    torch.manual_seed(1)
    encoder.replace_head("mhfa")
    encoder.train()
    crops = torch.stack([torch.from_numpy(make_waveform(9000, seed)) for seed in range(2)])
    gradients = []
    for kwargs in (None, {"use_reentrant": True}):
        if kwargs is not None:
            encoder.activation_checkpointing_enable(kwargs)
        encoder.zero_grad()
        torch.manual_seed(7)
        encoder(crops).embeddings.square().sum().backward()
        gradients.append({n: p.grad.clone() for n, p in encoder.named_parameters()})
    for parameter_name, gradient in gradients[0].items():
        atol = 1e-5 * float(1 + gradient.abs().max())
        torch.testing.assert_close(gradients[1][parameter_name], gradient, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("name", ["wav2vec2-base", "w2v-bert", "whisper"])
def test_layers_are_trained_above_frozen_ones_under_checkpointing(name, load):
    _, encoder = load(name)
    encoder.replace_head("mhfa")
    encoder.activation_checkpointing_enable({"use_reentrant": True})
    encoder.train()
    for parameter_name, parameter in encoder.named_parameters():
        parameter.requires_grad_(".layers." in parameter_name or "head" in parameter_name)
    encoder(torch.from_numpy(make_waveform(9000))[None]).embeddings.sum().backward()
    trained = [one for one in encoder.parameters() if one.requires_grad]
    assert all(one.grad is not None for one in trained)


@every_family
def test_dropped_layers_keep_their_parameters_in_the_graph(name, load):
    _, encoder = load(name)
    encoder.replace_head("mean", "weighted_sum")
    key = "encoder_layerdrop" if name == "whisper" else "layerdrop"
    encoder.backbone.encoder_config[key] = 1.0
    crops = torch.from_numpy(make_waveform(9000))[None]
    with torch.inference_mode():
        whole = encoder(crops).embeddings
    encoder.train()
    dropped = encoder(crops).embeddings
    assert not torch.allclose(dropped, whole, atol=1e-3)
    dropped.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("name", ["wav2vec2-base", "hubert-base", "w2v-bert", "whisper"])
def test_convolutions_alone_can_be_frozen(name, load):
    _, encoder = load(name)
    if name == "w2v-bert":  # it has none
        with pytest.raises(UserError, match="freeze_feature_encoder has no meaning"):
            encoder.freeze(freeze_feature_encoder=True)
        return
    encoder.freeze(freeze_feature_encoder=True)
    frozen = {n for n, p in encoder.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(".conv" in n for n in frozen)
    encoder.freeze()
    assert all(p.requires_grad for p in encoder.parameters())


def test_kaldi_log_mel_equals_upstream():
    waveform = make_waveform(16000 + 80)
    expected = SeamlessM4TFeatureExtractor()(waveform, sampling_rate=16000, return_tensors="pt")
    found, _ = KaldiLogMel(80)(torch.from_numpy(waveform)[None], None)
    num_frames = int(expected["attention_mask"].sum())
    assert found.shape[1] == num_frames
    difference = found - expected["input_features"][:, :num_frames]
    assert difference.abs().max() <= 1e-3  # of values of unit variance, in float32 after a log


def test_kaldi_log_mel_of_silence_is_the_same_in_a_batch():
    waveforms = torch.zeros(2, 20000)
    waveforms[1] = torch.from_numpy(make_waveform(20000))
    together, num_frames = KaldiLogMel(80)(waveforms, torch.tensor([9000, 20000]))
    alone, _ = KaldiLogMel(80)(waveforms[:1, :9000], None)
    assert int(num_frames[0]) == alone.shape[1]
    assert torch.equal(together[0, : alone.shape[1]], alone[0])


@pytest.mark.parametrize(("log_mel", "axis"), [(KaldiLogMel(80), 0), (WhisperLogMel(80), 1)])
def test_log_mel_in_a_batch_is_that_of_the_utterance(log_mel, axis):
    waveforms = torch.zeros(2, 20000)
    waveforms[1] = torch.from_numpy(make_waveform(20000))
    waveforms[0, :9119] = torch.from_numpy(make_waveform(9119))
    waveforms[0, :3000] = 0.0  # cut at a distance from the loudest
    waveforms[0, 9000:9119] *= 50.0  # loud behind the last whole hop, where no frame is centred
    together, num_frames = log_mel(waveforms, torch.tensor([9119, 20000]))
    alone, _ = log_mel(waveforms[:1, :9119], None)
    assert int(num_frames[0]) == alone.shape[1 + axis]
    own = together[0].narrow(axis, 0, int(num_frames[0]))
    assert (own - alone[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("num_samples", [480_000, 33_333, 400])
def test_whisper_log_mel_equals_the_start_of_upstreams_30_seconds(num_samples):
    waveform = make_waveform(num_samples)
    expected = WhisperFeatureExtractor()(waveform, sampling_rate=16000, return_tensors="pt")
    found, _ = WhisperLogMel(80)(torch.from_numpy(waveform)[None], None)
    num_frames = num_samples // 160
    assert found.shape == (1, 80, num_frames)
    # At 30 s upstream's last frame sees a mirrored end, at any other length zeros.
    last = num_frames - 1 if num_samples == 480_000 else num_frames
    difference = found - expected["input_features"][..., :num_frames]
    assert difference[..., :last].abs().max() <= 1e-4


def test_whisper_of_30_seconds_is_upstreams(load):
    upstream, encoder = load("whisper", max_source_positions=1500)
    encoder.replace_head("mean", "last")
    waveform = make_waveform(480_000)
    inputs = feature_extractor("whisper")(waveform, sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        frames = upstream.encoder(inputs["input_features"]).last_hidden_state
        found = encoder(torch.from_numpy(waveform)[None]).embeddings
    # But for the last frame's mirrored end.
    assert (normalize(found) - normalize(frames.mean(dim=1))).abs().max() <= 1e-4


def test_whisper_beyond_its_positions_goes_in_pieces(load):
    upstream, encoder = load("whisper")
    encoder.replace_head("mean", "last")
    waveform = make_waveform(2 * 24000 + 9600)  # 75 positions are 1.5 s
    mel = upstream_input("whisper", waveform)
    pieces = []
    for start in range(0, mel.shape[-1], 150):
        piece = mel[..., start : start + 150]
        whisper = upstream_encoder(upstream, "whisper", piece.shape[-1] // 2)
        with torch.inference_mode():
            pieces.append(whisper(piece).last_hidden_state)
    assert len(pieces) == 3
    expected = torch.cat(pieces, dim=1).mean(dim=1)
    with torch.inference_mode():
        found = encoder(torch.from_numpy(waveform)[None]).embeddings
    assert (found - expected).abs().max() <= 1e-4
    assert (
        encoder.encode([waveform, make_waveform(90_000)])[0] - normalize(expected)
    ).abs().max() <= 1e-5


def test_whispers_positions_are_never_trained(load):
    _, encoder = load("whisper")
    encoder.freeze()
    assert "backbone.encoder.embed_positions.weight" in encoder.state_dict()
    assert not any("embed_positions" in name for name, _ in encoder.named_parameters())


def test_models_saved_before_heads_could_be_chosen_load_as_they_were(load, tmp_path):
    _, encoder = load("wavlm", "ForXVector", use_weighted_layer_sum=True)
    encoder.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config["encoder_config"].pop("head") == {"name": "xvector"}
    assert config["encoder_config"].pop("layers") == "weighted_sum"
    path.write_text(json.dumps(config))
    reloaded = SpeakerEncoder.from_pretrained(tmp_path)
    waveform = make_waveform(NUM_SAMPLES)
    assert torch.equal(reloaded.encode(waveform), encoder.encode(waveform))
    assert reloaded.config.encoder_config == encoder.config.encoder_config


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("wav2vec2-large", {"adapter_attn_dim": 4}, r"adapter .*\(adapter_attn_dim\)"),
        ("data2vec-audio", {"add_adapter": True}, r"adapter .*\(add_adapter\)"),
        ("w2v-bert", {"position_embeddings_type": "rotary"}, "must be 'relative_key'"),
    ],
)
def test_parts_that_are_not_built_here_are_refused(name, changes, message, load):
    with pytest.raises(UserError, match=message):
        load(name, **changes)


def test_mels_that_do_not_pair_are_refused():
    from speaker_encoder.modeling.w2v_bert import W2vBertBackbone

    config = {**FAMILIES["w2v-bert"].config, "feature_projection_input_dim": 161}
    with pytest.raises(UserError, match="a multiple of 2; found 161"):
        W2vBertBackbone(config)


def test_extractor_of_another_sampling_rate_is_refused(tmp_path):
    write_folder(make_upstream("hubert-base"), "hubert-base", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(UserError, match="is for 8000 Hz"):
        SpeakerEncoder.from_pretrained(tmp_path)


def test_arguments_for_other_parts_of_upstream_are_accepted_and_left_out():
    fields = {
        name: getattr(transformers.WhisperConfig(), name)
        for name in transformers.WhisperConfig.__annotations__
    }
    config = WhisperBackbone({**fields, "encoder_layers": 1, "d_model": 12}).encoder_config
    assert "decoder_layers" not in config and "vocab_size" not in config
    assert config["encoder_layers"] == 1
    assert json.loads(json.dumps(config)) == config
    with pytest.raises(UserError, match="'hidden_size' in encoder_config of the whisper encoder"):
        WhisperBackbone({"hidden_size": 12})


def test_shortest_utterance_has_the_frames_that_its_head_needs(load):
    for name in FAMILIES:
        _, encoder = load(name)
        encoder.replace_head("mean")
        shortest = encoder.min_num_samples
        waveform = torch.from_numpy(np.asarray(make_waveform(shortest)))[None]
        with torch.inference_mode():
            frames, _ = encoder.backbone._frames(waveform, None)
        assert frames[0].shape[1] == 1, name
        assert torch.isfinite(encoder.encode(waveform[0])).all()


def test_every_class_of_transformers_with_the_head_is_tested():
    stems = {family.stem for family in FAMILIES.values()}
    with_head = {FAMILIES[name].stem for name in XVECTOR_FAMILIES} | {"WavLM"}
    for stem in stems:
        assert hasattr(transformers, f"{stem}ForXVector") == (stem in with_head)
    assert model_class(FAMILIES["hubert-base"], "Model") is transformers.HubertModel
