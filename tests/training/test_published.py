"""What is validated and written: the moving average, and a plain encoder without adapters."""

import copy

import pytest
import torch
from conftest import TINY_ECAPA, TINY_WAVLM
from torch.nn.functional import normalize

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.training.lora import add_lora, is_adapted, without_adapters
from speaker_encoder.training.published import PublishedModel

LORA = {"r": 4, "alpha": 16, "dropout": 0.0, "target": ["q_proj", "out_proj"], "train": []}
ECAPA_LORA = {**LORA, "target": ["*.blocks.1.tdnn?.conv.conv", "backbone.network.fc.conv"]}


def encoder(name="ecapa", encoder_config=TINY_ECAPA):
    torch.manual_seed(0)
    return SpeakerEncoder.from_name(name, pretrained=False, encoder_config=encoder_config)


def train(model, published, steps, rate=0.01):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate)
    generator = torch.Generator().manual_seed(1)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        waveforms = torch.randn(4, 12000, generator=generator)
        model(waveforms).embeddings.square().sum().backward()
        optimizer.step()
        published.update()


def naive_average(history, decay):
    average = history[0]
    for weights in history[1:]:
        average = decay * average + (1 - decay) * weights
    return average


def test_the_average_is_the_formula_and_buffers_are_copied():
    model = encoder()
    published = PublishedModel(model, 0.9)
    name = "network.fc.conv.weight"
    history = []
    for _ in range(5):
        train(model, published, 1)
        history.append(model.backbone.get_parameter(name).detach().clone())
    given = published.model()
    found = given.backbone.get_parameter(name)
    torch.testing.assert_close(found, naive_average(history, 0.9))
    assert not torch.equal(found, history[-1])
    for (name, buffer), own in zip(given.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(buffer, own), name
    assert given is not model and published.is_apart


@pytest.mark.parametrize(
    ("name", "encoder_config", "options"),
    [("wavlm-base", TINY_WAVLM, LORA), ("ecapa", TINY_ECAPA, ECAPA_LORA)],
)
def test_merged_and_adapted_embeddings_are_equal(name, encoder_config, options, tmp_path):
    model = encoder(name, encoder_config)
    untouched = copy.deepcopy(model)
    add_lora(model, options)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    generator = torch.Generator().manual_seed(1)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:  # zero at the start
            parameter.data.normal_(0, 0.3, generator=generator)
    plain = without_adapters(model)
    assert list(plain.state_dict()) == list(untouched.state_dict())
    waveforms = torch.randn(3, 16000)
    with torch.no_grad():
        adapted, merged, before = (
            normalize(m.eval()(waveforms).embeddings) for m in (model, plain, untouched)
        )
    assert (adapted - merged).abs().max() <= 1e-5
    assert (merged - before).abs().max() > 1e-3
    for parameter_name, parameter in model.named_parameters():
        if parameter_name in frozen:
            assert torch.equal(parameter, frozen[parameter_name]), parameter_name
    plain.save_pretrained(tmp_path)
    loaded = SpeakerEncoder.from_pretrained(tmp_path)
    assert not any("lora" in key or "base_layer" in key for key in loaded.state_dict())
    with torch.no_grad():
        assert torch.equal(normalize(loaded(waveforms).embeddings), merged)
    model.train()
    normalize(model(waveforms).embeddings)[:, 0].sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert (parameter.grad is None) == ("lora_" not in parameter_name), parameter_name


def test_what_lora_trains_besides_its_adapters():
    model = encoder("wavlm-base", TINY_WAVLM)
    add_lora(model, {**LORA, "train": ["backbone.projector", "backbone.tdnn.*"]})
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    besides = {name for name in learning if "lora_" not in name}
    assert besides and all("projector" in name or ".tdnn." in name for name in besides)
    assert len(learning - besides) == 2 * 2 * 2  # A and B of two modules of two layers


@pytest.mark.parametrize("key", ["target", "train"])
def test_a_pattern_of_nothing_names_what_is_near(key):
    with pytest.raises(UserError) as caught:
        add_lora(encoder("wavlm-base", TINY_WAVLM), {**LORA, key: ["query_proj"]})
    assert "'query_proj'" in str(caught.value) and "q_proj" in str(caught.value)


@pytest.mark.parametrize("target", [["kernel"], ["tdnn.*"], ["backbone.tdnn.1.kernel"]])
def test_the_layers_that_would_pass_an_adapter_by_are_no_targets(target):
    with pytest.raises(UserError, match="no linear or convolutional module"):
        add_lora(encoder("wavlm-base", TINY_WAVLM), {**LORA, "target": target})


def test_a_target_is_the_module_itself_and_none_whose_name_ends_like_it():
    model = encoder("wavlm-base", TINY_WAVLM)
    add_lora(model, {**LORA, "target": ["feature_extractor"]})
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learning and all(
        name.startswith("backbone.feature_extractor.lora_") for name in learning
    )
    assert is_adapted(model)


def test_what_cannot_be_adapted_is_told():
    with pytest.raises(UserError, match="target is empty"):
        add_lora(encoder(), {**LORA, "target": []})
    grouped = {**TINY_ECAPA, "groups": [1, 4, 1, 1, 1]}
    model = encoder(encoder_config=grouped)
    dilated = "*.blocks.1.res2net_block.blocks.0.conv.conv"
    for target in ("*.blocks.1.tdnn1.conv.conv", dilated, "asp.tdnn.conv.conv"):
        with pytest.raises(UserError, match="no linear or convolutional module"):
            add_lora(model, {**LORA, "target": [target]})
    with pytest.raises(UserError, match="peft refuses adapters"):
        add_lora(model, {**LORA, "r": 0, "target": ["*"]})


@pytest.mark.parametrize(
    ("name", "encoder_config"),
    [("wavlm-base", TINY_WAVLM), ("ecapa", {**TINY_ECAPA, "groups": [1, 4, 1, 1, 1]})],
)
def test_everything_can_be_adapted_and_merged(name, encoder_config):
    model = encoder(name, encoder_config)
    add_lora(model, {**LORA, "target": ["*"]})
    if name == "wavlm-base":  # SpecAugment of transformers asks for longer crops than these
        model.backbone.wavlm.config.apply_spec_augment = False
    model.train()(torch.randn(2, 16000)).embeddings.square().sum().backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    assert not is_adapted(without_adapters(model))


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_training_goes_on_from_saved_weights_bit_for_bit(ema_decay, tmp_path):
    def start():
        model = encoder()
        add_lora(model, ECAPA_LORA)
        return model, PublishedModel(model, ema_decay)

    model, published = start()
    train(model, published, 3)
    published.save_weights(tmp_path)
    again, published_again = start()
    published_again.load_weights(tmp_path)
    for one in ((model, published), (again, published_again)):
        train(*one, 2)
    for pair in ((model, again), (published.model(), published_again.model())):
        first, second = (one.state_dict() for one in pair)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_either_it_is_the_model_itself():
    model = encoder()
    published = PublishedModel(model, None)
    assert published.model() is model and not published.is_apart
