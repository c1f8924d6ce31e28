"""Heads on a self-supervised encoder: their sums by hand, what is new, frozen, saved, refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ssl_models import make_upstream, write_folder
from torch import nn
from transformers import AutoModel
from wavlm_models import make_waveform

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.export import ExportOptions, embed_corpus
from speaker_encoder.modeling.registry import NAMES, backbone_class
from speaker_encoder.modeling.ssl_heads import HEADS, build_head, complete_head

SMALL = {
    "xvector": "xvector",
    "ecapa": {
        "name": "ecapa",
        "channels": [16, 16, 16, 16, 48],
        "attention_channels": 8,
        "se_channels": 8,
        "lin_neurons": 12,
    },
    "mean": "mean",
    "attentive_statistics": {"name": "attentive_statistics", "embedding_dim": 20},
    "mhfa": {"name": "mhfa", "num_heads": 4, "compression_dim": 8, "embedding_dim": 20},
}
every_head = pytest.mark.parametrize("head", SMALL)
WAVEFORMS = [make_waveform(9000), make_waveform(20000)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A WavLM without a head, as transformers saves it."""
    return write_folder(make_upstream("wavlm"), "wavlm", tmp_path_factory.mktemp("wavlm") / "wavlm")


@pytest.fixture(scope="module")
def sv_folder(tmp_path_factory):
    """A WavLM with a trained x-vector head."""
    upstream = make_upstream("wavlm", "ForXVector")
    return write_folder(upstream, "wavlm", tmp_path_factory.mktemp("wavlm") / "wavlm-sv")


def _random_frames(hidden_size):
    torch.manual_seed(0)
    return torch.randn(2, 30, hidden_size), torch.tensor([30, 17])


def _built(name, hidden_size=6, **options):
    torch.manual_seed(1)
    return build_head(complete_head({"name": name, **options}), hidden_size).eval()


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_mean_by_hand():
    frames = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [6.0]]])
    head = _built("mean", 1)
    assert torch.equal(head(frames, num_frames=torch.tensor([2, 3])), torch.tensor([[2.0], [4.0]]))
    assert torch.equal(head(frames[1:], num_frames=None), torch.tensor([[4.0]]))
    assert _count(head) == 0


def test_attentive_statistics_equal_a_loop_over_frames():
    head = _built("attentive_statistics", 6, attention_channels=5, embedding_dim=4)
    frames, lengths = _random_frames(6)
    found = head(frames, num_frames=lengths)
    first, _, second = head.attention.requires_grad_(False)
    for row, length in enumerate(lengths.tolist()):
        own = frames[row, :length]
        scores = [
            float(second.weight[0] @ torch.tanh(first.weight @ frame + first.bias) + second.bias)
            for frame in own
        ]
        weights = np.exp(scores) / np.exp(scores).sum()
        mean = sum(weight * frame for weight, frame in zip(weights, own, strict=True))
        variance = sum(w * (frame - mean) ** 2 for w, frame in zip(weights, own, strict=True))
        pooled = torch.cat([mean, variance.sqrt()]).float()
        torch.testing.assert_close(found[row], head.linear(pooled), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:1], head(frames[:1], num_frames=None), atol=1e-6, rtol=0)


def test_mhfa_equals_a_loop_over_heads():
    head = _built("mhfa", 6, num_heads=3, compression_dim=4, embedding_dim=5)
    frames, lengths = _random_frames(6)
    of_values = frames.flip(2)
    found = head(frames, of_values, num_frames=lengths)
    for row, length in enumerate(lengths.tolist()):
        keys, values = head.key(frames[row, :length]), head.value(of_values[row, :length])
        contexts = []
        for number in range(3):
            scores = keys @ head.query.weight[number] + head.query.bias[number]
            weights = scores.exp() / scores.exp().sum()
            contexts.append(sum(w * value for w, value in zip(weights, values, strict=True)))
        expected = head.linear(torch.cat(contexts))
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)
    alone = head(frames[:1], of_values[:1], num_frames=None)
    torch.testing.assert_close(found[:1], alone, atol=1e-6, rtol=0)


def test_ecapa_is_speechbrains_on_each_utterance():
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    options = {name: value for name, value in SMALL["ecapa"].items() if name != "name"}
    head = _built("ecapa", 6, **options)
    upstream = ECAPA_TDNN(6, **options).eval()
    upstream.load_state_dict(head.network.state_dict())
    frames, lengths = _random_frames(6)
    with torch.inference_mode():
        found = head(frames, num_frames=lengths)
        for row, length in enumerate(lengths.tolist()):
            expected = upstream(frames[row : row + 1, :length])[0, 0]
            torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


def test_sizes_of_the_heads_by_hand():
    assert _count(_built("attentive_statistics", 1024)) == (
        (1024 * 128 + 128) + (128 + 1) + (2 * 1024 * 192 + 192)
    )
    assert _count(_built("mhfa", 768)) == (
        2 * (768 * 128 + 128) + (128 * 32 + 32) + (32 * 128 * 256 + 256)
    )
    width, squeezed, joined = 1024, 128, 3072

    def convolution(inputs, outputs, kernel=1):
        return inputs * outputs * kernel + outputs

    def normed(inputs, outputs, kernel=1):
        return convolution(inputs, outputs, kernel) + 2 * outputs

    part = width // 8
    block = (
        2 * normed(width, width)
        + 7 * normed(part, part, 3)
        + convolution(width, squeezed)
        + convolution(squeezed, width)
    )
    assert _count(_built("ecapa", 1024)) == (
        normed(1024, width, 5)
        + 3 * block
        + normed(3 * width, joined)
        + (normed(3 * joined, 128) + convolution(128, joined))
        + 2 * 2 * joined
        + convolution(2 * joined, 192)
    )


@pytest.mark.parametrize(
    ("name", "millions"),
    [("wav2vec2-base", 94.371712), ("wav2vec2-xls-r-300m", 315.438720), ("whisper-tiny", 7.632384)],
)
def test_sizes_of_published_encoders(name, millions):
    entry = NAMES[name]
    with torch.device("meta"):
        backbone = backbone_class(entry.encoder_kind)({**entry.encoder_config, "head": "mean"})
    # Whisper's 1500 x 384 sinusoids are not trained and do not count.
    assert _count(backbone) == millions * 1e6
    assert backbone.embedding_dim == {"wav2vec2-base": 768, "whisper-tiny": 384}.get(name, 1024)


def test_size_of_the_xvector_head_by_hand():
    with torch.device("meta"):
        backbone = backbone_class("wavlm")({"num_hidden_layers": 1, "layers": "weighted_sum"})
    head = [part for part in backbone.named_parameters() if not part[0].startswith("wavlm.")]
    tdnn = [(512, 5, 512), (512, 3, 512), (512, 3, 512), (512, 1, 512), (512, 1, 1500)]
    assert sum(parameter.numel() for _, parameter in head) == (
        2
        + (768 * 512 + 512)
        + sum(inputs * kernel * outputs + outputs for inputs, kernel, outputs in tdnn)
        + (2 * 1500 * 512 + 512)
    )


@every_head
@pytest.mark.parametrize("layers", ["last", "weighted_sum", 2])
def test_new_head_is_untrained_saved_and_reloaded(head, layers, folder, tmp_path):
    torch.manual_seed(2)
    if head == "mhfa" and layers != "weighted_sum":
        with pytest.raises(
            UserError, match=f"mhfa head weighs all layers itself.*found {layers!r}"
        ):
            SpeakerEncoder.from_name(str(folder), head=SMALL[head], layers=layers)
        return
    encoder = SpeakerEncoder.from_name(str(folder), head=SMALL[head], layers=layers)
    assert not encoder.training
    assert encoder.config.untrained_head is (head != "mean")
    if head != "mean":
        with pytest.raises(UserError, match="random weights"):
            encoder.encode(WAVEFORMS)
    embeddings = encoder.encode(WAVEFORMS, allow_untrained_head=True)
    assert embeddings.shape == (2, encoder.embedding_dim)
    assert encoder.config.embedding_dim == encoder.embedding_dim
    encoder.save_pretrained(tmp_path)
    for reloaded in (SpeakerEncoder.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert reloaded.config.encoder_config == encoder.config.encoder_config
        assert reloaded.config.encoder_config["layers"] == layers
        assert reloaded.config.untrained_head is encoder.config.untrained_head
        assert torch.equal(reloaded.encode(WAVEFORMS, allow_untrained_head=True), embeddings)
    again = SpeakerEncoder.from_name(str(tmp_path), head=SMALL[head], layers=layers)
    assert torch.equal(again.encode(WAVEFORMS, allow_untrained_head=True), embeddings)


def test_mhfa_has_a_sum_of_layers_for_keys_and_one_for_values(folder):
    encoder = SpeakerEncoder.from_name(str(folder), head="mhfa")
    assert encoder.config.encoder_config["layers"] == "weighted_sum"
    assert encoder.backbone.layer_weights.shape == (2, 4)
    with torch.no_grad():
        # The keys from the first layer's input alone, the values from the last layer alone.
        encoder.backbone.layer_weights.copy_(torch.tensor([[99.0, 0, 0, 0], [0, 0, 0, 99.0]]))
    captured = {}
    encoder.backbone.head.register_forward_pre_hook(lambda _, frames: captured.update(f=frames))
    encoder.encode(WAVEFORMS[0], allow_untrained_head=True)
    for layers, frames in zip((0, 3), captured["f"], strict=True):
        plain = SpeakerEncoder.from_name(str(folder), head="mean", layers=layers)
        expected = plain.encode(WAVEFORMS[0])[0]
        found = nn.functional.normalize(frames.mean(dim=1))[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_trained_head_stays_where_it_is_as_asked_for(sv_folder):
    trained = SpeakerEncoder.from_pretrained(sv_folder)
    same = SpeakerEncoder.from_name(str(sv_folder), head="xvector", layers="last")
    assert not same.config.untrained_head
    assert torch.equal(same.encode(WAVEFORMS), trained.encode(WAVEFORMS))
    for head, layers in (("xvector", "weighted_sum"), (None, 1), ("attentive_statistics", None)):
        other = SpeakerEncoder.from_name(str(sv_folder), head=head, layers=layers)
        assert other.config.untrained_head
        names = {name.partition(".")[0] for name in other.backbone.state_dict()}
        assert ("tdnn" in names) is (head != "attentive_statistics")
        own = other.backbone.state_dict()
        assert all(
            torch.equal(own[name], tensor)
            for name, tensor in trained.backbone.state_dict().items()
            if name.startswith("wavlm.") and name in own
        )


def test_random_encoder_is_untrained_whatever_its_head():
    small = {"num_hidden_layers": 1, "conv_dim": [8] * 7, "hidden_size": 32}
    small |= {"num_attention_heads": 2, "intermediate_size": 32, "num_conv_pos_embeddings": 4}
    encoder = SpeakerEncoder.from_name(
        "wavlm-base", pretrained=False, encoder_config=small, head="mean"
    )
    assert encoder.config.untrained_head


def test_new_heads_differ_from_seed_to_seed(folder):
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        encoder = SpeakerEncoder.from_name(str(folder), head="mhfa")
        weights.append(encoder.backbone.head.key.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_exporter_refuses_a_new_head_and_takes_the_mean(folder, tmp_path):
    import soundfile

    corpus = tmp_path / "corpus"
    for speaker in ("a", "b"):
        (corpus / speaker).mkdir(parents=True)
        soundfile.write(corpus / speaker / "1.wav", WAVEFORMS[0], 16000)
    paths = {}
    for head in ("mhfa", "mean"):
        paths[head] = tmp_path / head
        SpeakerEncoder.from_name(str(folder), head=head).save_pretrained(paths[head])

    def export(head):
        options = ExportOptions("mine", str(corpus), checkpoint=str(paths[head]))
        return embed_corpus(replace(options, show_progress=False, num_workers=0))

    with pytest.raises(UserError, match="random weights"):
        export("mhfa")
    export("mean")
    assert len(list(corpus.rglob("1.mine_embedding"))) == 2


@every_head
def test_only_the_head_is_trained(head, folder):
    encoder = SpeakerEncoder.from_name(str(folder), head=SMALL[head], layers="weighted_sum")
    encoder.freeze(train_only_head=True)
    trained = {name for name, one in encoder.named_parameters() if one.requires_grad}
    assert trained == {
        name for name, _ in encoder.named_parameters() if not name.startswith("backbone.wavlm.")
    }
    assert "backbone.layer_weights" in trained
    encoder.train()
    crops = torch.stack([torch.from_numpy(make_waveform(9000, seed)) for seed in range(3)])
    before = {name: one.detach().clone() for name, one in encoder.named_parameters()}
    optimizer = torch.optim.Adam(one for one in encoder.parameters() if one.requires_grad)
    torch.manual_seed(0)
    embeddings = encoder(crops).embeddings
    (embeddings * torch.randn_like(embeddings)).sum().backward()
    optimizer.step()
    moved = {name for name, one in encoder.named_parameters() if not torch.equal(one, before[name])}
    assert moved == trained


def test_mean_of_the_last_layer_has_nothing_to_train(folder):
    encoder = SpeakerEncoder.from_name(str(folder), head="mean")
    with pytest.raises(UserError, match="mean head has nothing to train"):
        encoder.freeze(train_only_head=True)


def test_only_the_xvector_head_is_enlarged(folder):
    encoder = SpeakerEncoder.from_name(str(folder), head="mhfa")
    with pytest.raises(UserError, match="enlarge_head is for the x-vector head, not for"):
        encoder.enlarge_head(1024)
    encoder.replace_head("xvector", "last")
    encoder.enlarge_head(50)
    assert encoder.embedding_dim == 50


@pytest.mark.parametrize(
    ("head", "layers", "message"),
    [
        ("ecapo", None, "Unknown head 'ecapo'. Did you mean 'ecapa'"),
        ({"size": 3}, None, "Unknown head None"),
        ({"name": "mhfa", "heads": 3}, None, "Unknown key 'heads' in the mhfa head. Did you mean"),
        ({"name": "mhfa", "num_heads": "3"}, None, "'num_heads' in the mhfa head must be int"),
        (
            {"name": "mhfa", "num_heads": 0},
            None,
            "'num_heads' in the mhfa head must be at least 1, found 0",
        ),
        ({"name": "ecapa", "channels": [10] * 5}, None, "a multiple of res2net_scale"),
        (None, "all", '"last", "weighted_sum", or a whole number from 0.*to 3.*found \'all\''),
        (None, 4, "found 4"),
        (None, -1, "found -1"),
        (None, True, "found True"),
    ],
)
def test_impossible_choices_are_refused(head, layers, message, folder):
    with pytest.raises(UserError, match=message):
        SpeakerEncoder.from_name(str(folder), head=head, layers=layers)


def test_layers_and_upstreams_word_for_a_sum_must_agree():
    config = {"num_hidden_layers": 1, "layers": "last", "use_weighted_layer_sum": True}
    with pytest.raises(UserError, match="use_weighted_layer_sum"):
        backbone_class("wavlm")(config)


def test_other_families_have_no_heads(make_encoder):
    with pytest.raises(UserError, match="head and layers have no meaning for the ecapa encoder"):
        make_encoder("ecapa").replace_head("mhfa")


def test_cut_off_layers_are_gone(folder):
    whole = SpeakerEncoder.from_name(str(folder), head="mean")
    cut = SpeakerEncoder.from_name(str(folder), head="mean", layers=1)
    assert len(cut.backbone.wavlm.encoder.layers) == 1
    assert _count(cut) < _count(whole)
    with pytest.raises(UserError, match="needs 3 layers; this encoder was cut off behind layer 1"):
        cut.replace_head(layers="weighted_sum")


def test_head_keeps_the_precision_of_the_encoder(folder):
    encoder = SpeakerEncoder.from_name(str(folder)).to(torch.bfloat16)
    for head in SMALL.values():
        encoder.replace_head(head, "weighted_sum")
        assert {one.dtype for one in encoder.parameters()} == {torch.bfloat16}
        embeddings = encoder.encode(WAVEFORMS, allow_untrained_head=True)
        assert torch.isfinite(embeddings).all()


def test_the_configs_table_of_heads_is_the_encoders():
    from speaker_encoder.training.config_heads import HEADS as KEYS

    assert list(KEYS) == list(HEADS) == list(SMALL)
    for name, head_class in HEADS.items():
        defaults = {} if head_class is None else head_class.defaults
        assert {option: default for option, (_, default) in KEYS[name].items()} == defaults
