from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hub_server import HubServer
from voxceleb_trainer_files import make_weights

from speaker_encoder import SpeakerEncoder, UserError


@pytest.fixture
def use_hub(monkeypatch):
    """Points huggingface_hub to an address, as HF_ENDPOINT does at its import."""

    def use(address: str) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)

    return use


@pytest.fixture
def hub(use_hub):
    server = HubServer().start()
    use_hub(server.url)
    yield server
    server.stop()


def publish(server: HubServer, folder: Path) -> None:
    """Puts a folder's files there as someone/encoder."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.publish("someone/encoder", files)


def test_speechbrain_repository_of_the_hub(hub, tmp_path, speechbrain_folder, waveform):
    (speechbrain_folder / "example1.wav").write_bytes(b"not needed")
    publish(hub, speechbrain_folder)
    encoder = SpeakerEncoder.from_pretrained("someone/encoder", cache_dir=tmp_path)
    (speechbrain_folder / "example1.wav").unlink()
    assert hub.downloaded == {"config.json", "hyperparams.yaml", "embedding_model.ckpt"}
    assert encoder.config.base_model_name == "someone/encoder"
    local = SpeakerEncoder.from_pretrained(speechbrain_folder)
    assert (encoder.encode(waveform(8000)) - local.encode(waveform(8000))).abs().max() == 0


def test_rawnet3_as_its_authors_publish_it(hub, tmp_path):
    torch.save({"model": make_weights("rawnet3", {})}, tmp_path / "model.pt")
    card = b"---\nlicense: mit\n---\n\n---\nthumbnail: none\n---\n"  # as it stands there
    files = {"model.pt": (tmp_path / "model.pt").read_bytes(), "README.md": card, "x.png": b""}
    hub.publish("jungjee/RawNet3", files)
    encoder = SpeakerEncoder.from_pretrained("rawnet3", cache_dir=tmp_path / "cache")
    assert hub.downloaded == {"model.pt", "README.md"}
    assert encoder.config.base_model_name == "rawnet3"
    assert encoder.config.source_license == "mit"
    assert encoder.embedding_dim == 256
    assert not encoder.config.untrained_head


def test_own_repository_of_the_hub_and_its_cache(hub, tmp_path, make_encoder, waveform, use_hub):
    encoder = make_encoder("dvector")
    encoder.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "pytorch_model.bin").write_bytes(b"not needed")
    publish(hub, tmp_path / "saved")
    cache = tmp_path / "cache"
    loaded = SpeakerEncoder.from_pretrained("someone/encoder", cache_dir=cache)
    assert hub.downloaded == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert (loaded.encode(waveform(8000)) - encoder.encode(waveform(8000))).abs().max() == 0
    use_hub("http://127.0.0.1:9")  # the discard port: nobody listens
    again = SpeakerEncoder.from_pretrained("someone/encoder", cache_dir=cache)
    assert (again.encode(waveform(8000)) - encoder.encode(waveform(8000))).abs().max() == 0


def test_repository_that_the_hub_does_not_have(hub, tmp_path):
    with pytest.raises(UserError, match=r"no local folder either: the Hub has no such repository"):
        SpeakerEncoder.from_pretrained("nobody/nothing", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [("ecapa", "speechbrain/spkrec-ecapa-voxceleb"), ("wavlm-large", "microsoft/wavlm-large")],
)
def test_hub_that_cannot_be_reached(use_hub, tmp_path, name, hub_id):
    use_hub("http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        SpeakerEncoder.from_pretrained(name, cache_dir=tmp_path)
    text = str(caught.value)
    assert text.startswith(f"Could not load '{name}' ({hub_id} on the Hub): ")
    assert "the Hugging Face Hub cannot be reached" in text
    assert f"`hf download {hub_id} --local-dir <folder>`" in text
    assert "give its path in place of the name" in text


def test_offline_mode_says_the_same(tmp_path):
    with pytest.raises(UserError, match=r"cannot be reached.*give its path in place of the name"):
        SpeakerEncoder.from_pretrained("ecapa", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ecappa",
            r"Unknown encoder 'ecappa'. Did you mean 'ecapa'\? Known: .*dvector, .*ecapa, .*wavlm",
        ),
        ("./nowhere", "There is no folder './nowhere'"),
        ("/nowhere/at/all", "There is no folder '/nowhere/at/all'"),
        ("runs/checkpoint-100", "There is no folder 'runs/checkpoint-100'"),
        ("checkpoint-100", "There is no folder 'checkpoint-100'"),
    ],
)
def test_names_that_are_not_there(name, message):
    with pytest.raises(UserError, match=message):
        SpeakerEncoder.from_pretrained(name)


def test_random_weights_need_a_known_name():
    with pytest.raises(UserError, match="Did you mean 'wavlm-base'"):
        SpeakerEncoder.from_name("wavlm-bas", pretrained=False)


def test_folders_that_are_no_encoder(tmp_path, make_encoder):
    with pytest.raises(UserError, match=r"found nothing\. Known are"):
        SpeakerEncoder.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"model_type 'bert'; found config.json. Known are"):
        SpeakerEncoder.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is not a JSON object"):
        SpeakerEncoder.from_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"is a file, and no checkpoint of .* is a folder"):
        SpeakerEncoder.from_pretrained(tmp_path / "config.json")
    (tmp_path / "config.json").unlink()
    make_encoder("dvector").save_pretrained(tmp_path / "checkpoint-20")
    with pytest.raises(UserError, match=r"has checkpoints; name one: .*checkpoint-20"):
        SpeakerEncoder.from_pretrained(tmp_path)
    assert SpeakerEncoder.from_pretrained(str(tmp_path / "checkpoint-20")).embedding_dim == 24
    (tmp_path / "checkpoint-20").rename(tmp_path / "model")
    with pytest.raises(UserError, match=r"folder of a run; name its model: .*model"):
        SpeakerEncoder.from_pretrained(tmp_path)
