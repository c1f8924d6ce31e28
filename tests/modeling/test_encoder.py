import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer, TrainingArguments

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.encoding import plan_batches


@pytest.fixture
def encoder(make_encoder):
    return make_encoder("ecapa")


class _PullTogether(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(10.0))

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert labels.shape == (len(embeddings),)
        return self.w * embeddings.var(dim=0).mean()


def test_loss_needs_a_loss_and_labels(encoder):
    wavs, labels = torch.randn(4, 8000), torch.tensor([0, 0, 1, 1])
    assert encoder(wavs, labels=labels).loss is None
    encoder.attach_loss(_PullTogether())
    assert encoder(wavs).loss is None
    output = encoder(wavs, labels=labels)
    expected = 10.0 * output.embeddings.var(dim=0).mean()
    torch.testing.assert_close(output.loss, expected)
    assert "loss_fn.w" in encoder.state_dict()
    encoder.attach_loss(None)
    assert "loss_fn.w" not in encoder.state_dict()


def test_published_encoder_has_no_loss(encoder, tmp_path):
    encoder.attach_loss(_PullTogether())
    encoder.save_pretrained(tmp_path)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert keys and not any(key.startswith("loss_fn") for key in keys)
    assert "loss_fn.w" in encoder.state_dict()


def test_real_trainer_saves_and_resumes_the_loss(encoder, tmp_path):
    rng = np.random.default_rng(0)
    data = [
        {"input_values": rng.standard_normal(4000).astype(np.float32), "labels": n % 2}
        for n in range(8)
    ]

    def train(model, max_steps, **options):
        arguments = TrainingArguments(
            tmp_path,
            max_steps=max_steps,
            save_steps=2,
            per_device_train_batch_size=4,
            learning_rate=0.1,
            lr_scheduler_type="constant",
            use_cpu=True,
            disable_tqdm=True,
            logging_steps=1,
        )
        model.attach_loss(_PullTogether())
        trainer = Trainer(model, arguments, train_dataset=data)
        trainer.train(**options)
        return trainer.model

    trained = train(encoder, 4)
    weights = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert float(weights["loss_fn.w"]) != 10.0
    clean = SpeakerEncoder.from_pretrained(tmp_path / "checkpoint-2")
    assert clean.loss_fn is None
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = train(clean, 4, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_encode_keeps_the_order_and_normalises(encoder, waveform):
    waveforms = [waveform(length) for length in (9000, 30000, 7000, 30000, 12000)]
    embeddings = encoder.encode([waveforms[0], torch.from_numpy(waveforms[1]), *waveforms[2:]])
    assert embeddings.shape == (5, encoder.embedding_dim)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    assert torch.equal(embeddings[1], embeddings[3])
    for row, one in zip(embeddings, waveforms, strict=True):
        torch.testing.assert_close(row, encoder.encode(one)[0], atol=1e-5, rtol=0)
    assert not embeddings.requires_grad


def test_encode_leaves_the_mode_as_it_was(encoder, waveform):
    encoder.train()
    encoder.freeze_batch_norm()
    before = encoder.state_dict()["backbone.network.asp_bn.norm.running_mean"].clone()
    encoder.encode(waveform(8000))
    assert encoder.training
    assert not encoder.backbone.network.asp_bn.norm.training
    assert torch.equal(before, encoder.state_dict()["backbone.network.asp_bn.norm.running_mean"])


def test_encode_of_nothing(encoder):
    assert encoder.encode([]).shape == (0, encoder.embedding_dim)


def test_encode_files(encoder, tmp_path, waveform):
    soundfile = pytest.importorskip("soundfile", reason="writes audio files")
    paths = []
    for number, rate in enumerate((16000, 48000)):
        paths.append(tmp_path / f"{number}.flac")
        soundfile.write(paths[-1], waveform(2 * rate + number), rate)
    embeddings = encoder.encode([str(paths[0]), paths[1], waveform(16000)], show_progress=False)
    assert embeddings.shape == (3, encoder.embedding_dim)
    read, _ = soundfile.read(paths[0], dtype="float32")
    torch.testing.assert_close(embeddings[0], encoder.encode(read)[0], atol=1e-5, rtol=0)
    assert torch.equal(encoder.encode(paths[0])[0], encoder.encode(str(paths[0]))[0])
    soundfile.write(tmp_path / "short.wav", waveform(160), 16000)
    with pytest.raises(UserError, match=r"short.wav has 160 samples \(0.010 s\)"):
        encoder.encode(tmp_path / "short.wav")
    with pytest.raises(UserError, match=r"nothing\.wav"):
        encoder.encode(tmp_path / "nothing.wav")


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.full(8000, np.nan, dtype=np.float32), "non-finite samples"),
        (np.append(np.zeros(8000), np.inf), "non-finite samples"),
        (np.zeros(0, dtype=np.float32), "is empty"),
        (np.zeros((2, 8000), dtype=np.float32), r"shape \(T,\), found shape \(2, 8000\)"),
        (torch.zeros(1, 8000), r"shape \(T,\), found shape \(1, 8000\)"),
        (np.zeros(8000, dtype=np.int16), "floating point samples .* found int16"),
        (torch.zeros(8000, dtype=torch.int64), "floating point samples .* found int64"),
        ("list", "Input 0 must be a path or a 1-D waveform .* found float"),
        (np.zeros(639, dtype=np.float32), r"639 samples \(0.040 s\); the shortest"),
    ],
)
def test_bad_waveforms(encoder, waveform, message):
    waveform = [0.0] * 8000 if isinstance(waveform, str) else waveform
    with pytest.raises(UserError, match=message):
        encoder.encode(waveform)
    if not isinstance(waveform, list):
        with pytest.raises(UserError, match=message.replace("Input 0", "Input 1")):
            encoder.encode([np.zeros(8000, dtype=np.float32), waveform])


def test_bad_batches(encoder):
    with pytest.raises(UserError, match=r"shape \(B, T\), found \(8000,\)"):
        encoder(torch.zeros(8000))
    with pytest.raises(UserError, match="attention_mask must have the shape"):
        encoder(torch.zeros(2, 8000), torch.ones(2, 50))
    padded_in_front = torch.ones(2, 8000)
    padded_in_front[0, :1000] = 0
    with pytest.raises(UserError, match="pad behind"):
        encoder(torch.zeros(2, 8000), padded_in_front)
    with pytest.raises(UserError, match="batch_size must be at least 1"):
        encoder.encode([np.zeros(8000, dtype=np.float32)], batch_size=0)


def test_untrained_head_refuses_to_encode(waveform):
    encoder = SpeakerEncoder.from_name(
        "dvector", pretrained=False, encoder_config={"hidden_size": 8, "embedding_size": 8}
    )
    assert encoder.config.untrained_head
    with pytest.raises(UserError, match=r"random weights.*allow_untrained_head"):
        encoder.encode(waveform(8000))
    assert encoder.encode(waveform(8000), allow_untrained_head=True).shape == (1, 8)


def test_untrained_head_survives_saving(tmp_path, waveform):
    encoder = SpeakerEncoder.from_name("dvector", False, {"hidden_size": 8, "embedding_size": 8})
    encoder.save_pretrained(tmp_path)
    assert SpeakerEncoder.from_pretrained(tmp_path).config.untrained_head
    encoder.config.untrained_head = False
    encoder.save_pretrained(tmp_path)
    assert SpeakerEncoder.from_pretrained(tmp_path).encode(waveform(8000)).shape == (1, 8)


def test_similarity_is_the_cosine(encoder):
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    b = np.array([[6.0, 8.0], [0.0, 2.0], [-1.0, 0.0]])
    expected = torch.tensor([[1.0, 0.8, -0.6], [0.6, 0.0, -1.0]])
    torch.testing.assert_close(encoder.similarity(a, b), expected)
    torch.testing.assert_close(encoder.similarity(a[0], b[1]), torch.tensor([[0.8]]))


def test_do_normalize_makes_the_level_irrelevant(encoder, waveform):
    one = waveform(9000)
    raw = encoder.encode([one, 0.1 * one + 0.05])
    encoder.config.do_normalize = True
    normalized = encoder.encode([one, 0.1 * one + 0.05, waveform(20000)])
    assert (raw[0] - raw[1]).abs().max() > 1e-3
    assert (normalized[0] - normalized[1]).abs().max() < 1e-4
    assert (normalized[0] - encoder.encode(one)[0]).abs().max() <= 1e-5


def test_do_normalize_is_that_of_transformers(waveform):
    from transformers import Wav2Vec2FeatureExtractor

    from speaker_encoder.modeling.batching import normalize_utterances

    one = waveform(9000)
    expected = Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm([one], None)[0]
    found = normalize_utterances(torch.from_numpy(one)[None], None)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batches_are_bounded_and_complete():
    lengths = [5, 100, 7, 3, 100, 50, 8]
    batches = plan_batches(lengths, batch_size=3, max_batch_samples=120)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert batches == [[1], [4], [5, 6], [2, 0, 3]]
    for batch in batches:
        assert len(batch) <= 3
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 120


def test_missing_weights_are_an_error(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    del weights["backbone.network.fc.conv.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"1 are missing, backbone.network.fc.conv.weight first"):
        SpeakerEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("size", [0, 1000, None])
def test_damaged_folder_is_an_error(encoder, tmp_path, size):
    encoder.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match="incomplete or damaged"):
        SpeakerEncoder.from_pretrained(tmp_path)


def test_a_loaded_encoder_does_not_depend_on_its_file(encoder, tmp_path, waveform):
    encoder.save_pretrained(tmp_path)
    loaded = SpeakerEncoder.from_pretrained(tmp_path)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.state_dict().values())
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(20_000)
        file.write(b"\xff" * 100_000)
    assert torch.equal(loaded.encode(waveform(9000)), encoder.encode(waveform(9000)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"encoder_kind": "ecapa"', '"encoder_kind": "ecappa"', "Did you mean 'ecapa'"),
        ('"embedding_dim": 48', '"embedding_dim": "48"', "embedding_dim"),
        ('"lin_neurons": 48', '"lin_neurons": 47', "cannot be loaded"),
    ],
)
def test_config_that_does_not_fit(encoder, tmp_path, old, new, message):
    encoder.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        SpeakerEncoder.from_pretrained(tmp_path)


def test_dtype_of_both_layouts(encoder, tmp_path, speechbrain_folder):
    encoder.save_pretrained(tmp_path)
    assert SpeakerEncoder.from_pretrained(tmp_path, dtype="bfloat16").dtype == torch.bfloat16
    upstream = SpeakerEncoder.from_pretrained(speechbrain_folder, dtype=torch.bfloat16)
    assert upstream.dtype == torch.bfloat16
    with pytest.raises(UserError, match="device_map cannot be given"):
        SpeakerEncoder.from_pretrained(speechbrain_folder, device_map="auto")


def test_pretrained_brings_its_own_architecture():
    with pytest.raises(UserError, match="Leave encoder_config out"):
        SpeakerEncoder.from_name("ecapa", encoder_config={"channels": [64] * 5})


def test_importing_the_models_does_not_import_speechbrain():
    code = "import sys, speaker_encoder.modeling;sys.exit('speechbrain' in sys.modules)"
    folder = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0


def test_an_adapter_that_transformers_would_follow_is_refused(tmp_path, make_encoder):
    """``AutoModel`` loads the base that an adapter names, and hands on where it came from."""
    make_encoder("ecapa").save_pretrained(tmp_path)
    assert SpeakerEncoder.from_pretrained(tmp_path, adapter_kwargs={"revision": "main"})
    followed = {"_adapter_model_path": "someone/adapter"}
    with pytest.raises(UserError, match=r"someone/adapter/adapter_config\.json is refused"):
        SpeakerEncoder.from_pretrained(tmp_path, adapter_kwargs=followed)
