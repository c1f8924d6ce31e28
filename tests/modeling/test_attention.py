"""Attention through torch's fused kernels: upstream's numbers, gradients, dropout and adapters."""

import pytest
import torch
from tiny_configs import TINY
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize
from transformers.models.wavlm.modeling_wavlm import WavLMAttention
from wavlm_models import make_backbone, make_upstream, make_waveform, pad_batch

from speaker_encoder.modeling.wavlm_parts import SdpaWavLMAttention
from speaker_encoder.training.lora import add_lora

CLASSES = (WavLMAttention, SdpaWavLMAttention)
LENGTHS = torch.tensor([70, 41, 8])
TRANSFORMERS = [
    name
    for name, tiny in TINY.items()
    if tiny.encoder_kind.startswith(
        ("wavlm", "wav2vec2", "hubert", "unispeech-sat", "data2vec", "whisper")
    )
]
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def make_layers(dropout=0.0):
    """Gives three layers of upstream's attention; the first one has the position bias."""
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(
        WavLMAttention(64, 4, dropout, has_relative_position_bias=index == 0) for index in range(3)
    )
    for parameter in layers.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return layers.train()


def attend(layers, attention_class, is_padded, device="cpu", seed=0):
    """Gives the frames of three layers, 0 behind an end, then their gradient and each parameter's.

    The k_proj biases are left out: they cancel in the softmax, and their gradients are rounding.
    """
    layers.zero_grad()
    frames = torch.randn(3, 70, 64, generator=torch.Generator().manual_seed(1)).to(device)
    frames.requires_grad_()
    is_frame = (torch.arange(70) < LENGTHS[:, None]).to(device)
    hidden_states, position_bias = frames, None
    torch.manual_seed(seed)
    for layer in layers:
        layer.__class__ = attention_class
        mask = is_frame if is_padded else None
        attended, _, position_bias = layer(hidden_states, mask, position_bias)
        hidden_states = functional.layer_norm(hidden_states + attended, (64,))
    if is_padded:
        hidden_states = hidden_states.masked_fill(~is_frame[..., None], 0.0)
    direction = torch.linspace(-1, 1, 3 * 70 * 64, device=device).view_as(hidden_states)
    (hidden_states.float() * direction).sum().backward()
    gradients = {
        name: one.grad.clone()
        for name, one in layers.named_parameters()
        if not name.endswith("k_proj.bias")
    }
    return hidden_states.detach(), {"frames": frames.grad, **gradients}


def assert_equal_attention(found, expected):
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    for name, gradient in expected[1].items():
        assert gradient.abs().max() > 1e-3, name
        error = (found[1][name] - gradient).abs().max() / gradient.abs().max()
        assert error <= 1e-4, name


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_equals_upstream_with_its_gradients_and_its_dropout(dropout, is_padded):
    layers = make_layers(dropout)
    expected, found = (attend(layers, each, is_padded) for each in CLASSES)
    assert_equal_attention(found, expected)
    other_draw, _ = attend(layers, SdpaWavLMAttention, is_padded, seed=1)
    assert torch.equal(other_draw, found[0]) == (dropout == 0)
    layers.eval()
    found, _ = attend(layers, SdpaWavLMAttention, is_padded, seed=1)
    expected, _ = attend(make_layers(), SdpaWavLMAttention, is_padded)
    assert torch.equal(found, expected)  # no dropout in eval mode


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_on_a_gpu_the_fused_kernel_equals_upstream_in_training(is_padded):
    layers = make_layers().cuda()
    expected = attend(layers, WavLMAttention, is_padded, "cuda")
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):  # an error where this kernel cannot run
        found = attend(layers, SdpaWavLMAttention, is_padded, "cuda")
        assert_equal_attention(found, expected)
        with torch.autocast("cuda", torch.bfloat16):
            frames, gradients = attend(layers, SdpaWavLMAttention, is_padded, "cuda")
    assert (frames - expected[0]).abs().mean() <= 0.03
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_every_layer_of_every_family_takes_the_fused_kernel(name, make_encoder, monkeypatch):
    encoder = make_encoder(name)
    calls = []
    fused = functional.scaled_dot_product_attention

    def count(*arguments, **options):
        calls.append(options.get("attn_mask"))
        return fused(*arguments, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", count)
    num_samples = encoder.backbone.min_num_samples
    input_values, lengths = pad_batch([make_waveform(num_samples + n) for n in (0, 5000)])
    # An error where torch would multiply and take the softmax in several steps.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert torch.isfinite(encoder.backbone(input_values, lengths)).all()
    assert len(calls) == len(encoder.backbone._encoder.layers)
    assert all(mask is not None for mask in calls)


@pytest.mark.parametrize(
    "name", ["wav2vec2", "hubert", "unispeech-sat", "data2vec-audio", "whisper"]
)
def test_equals_the_attention_that_gives_its_weights(name, make_encoder, monkeypatch):
    backbone = make_encoder(name).backbone
    waveforms = torch.stack([torch.from_numpy(make_waveform(20160, seed)) for seed in range(2)])
    with torch.inference_mode():
        found = normalize(backbone(waveforms), dim=-1)
        backbone._model.set_attn_implementation("eager")
        monkeypatch.delattr(functional, "scaled_dot_product_attention")
        expected = normalize(backbone(waveforms), dim=-1)
    assert (found - expected).abs().max() <= 1e-4


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_embeddings_of_a_padded_batch_are_those_of_upstreams_attention():
    backbone = make_backbone(make_upstream("base-sv"))
    batch = pad_batch([make_waveform(length) for length in (8000, 30000)])
    embeddings = {}
    for attention_class in CLASSES:
        for layer in backbone.wavlm.encoder.layers:
            layer.attention.__class__ = attention_class
        with torch.inference_mode():
            embeddings[attention_class] = normalize(backbone(*batch), dim=-1)
    expected, found = embeddings.values()
    assert (found - expected).abs().max() <= 1e-5


def test_every_projection_hears_its_adapter(make_encoder):
    encoder = make_encoder("wavlm")
    add_lora(encoder, {"r": 2, "alpha": 4, "dropout": 0.0, "target": PROJECTIONS, "train": []})
    encoder.eval()
    encoder(torch.from_numpy(make_waveform(16000))[None]).embeddings[:, 0].sum().backward()
    learning = {
        n: p.grad for n, p in encoder.named_parameters() if n.endswith("lora_B.default.weight")
    }
    assert len(learning) == len(PROJECTIONS) * len(encoder.backbone.wavlm.encoder.layers)
    for name, gradient in learning.items():
        assert gradient is not None and gradient.abs().max() > 0, name
