import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import huggingface_hub.constants
import pytest

from speaker_encoder import SpeakerEncoder, UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _HubHandler(BaseHTTPRequestHandler):
    """The three answers of the Hub that a download needs; anything else is 404."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = urlparse(self.path).path
        repository = f"/{self.server.hub_id}"
        self.server.requests.append(path)
        if path.startswith(f"/api/models{repository}/tree/"):
            self._send(json.dumps(self._tree()).encode(), {}, with_body)
        elif path.startswith(f"/api/models{repository}"):
            siblings = [{"rfilename": name} for name in self._files()]
            info = {"id": self.server.hub_id, "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(info).encode(), {}, with_body)
        elif path.startswith(f"{repository}/resolve/"):
            content = (self.server.folder / Path(path).name).read_bytes()
            headers = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
            }
            self._send(content, headers, with_body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _files(self) -> list[str]:
        return sorted(path.name for path in self.server.folder.iterdir())

    def _tree(self) -> list[dict]:
        return [
            {
                "type": "file",
                "path": name,
                "size": (self.server.folder / name).stat().st_size,
                "oid": hashlib.sha1(name.encode()).hexdigest(),
            }
            for name in self._files()
        ]

    def _send(self, content: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


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
    server = ThreadingHTTPServer(("127.0.0.1", 0), _HubHandler)
    server.requests, server.hub_id, server.folder = [], "someone/encoder", None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    use_hub(f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _downloaded(server) -> set[str]:
    return {Path(path).name for path in server.requests if "/resolve/" in path}


def test_speechbrain_repository_of_the_hub(hub, tmp_path, speechbrain_folder, waveform):
    (speechbrain_folder / "example1.wav").write_bytes(b"not needed")
    hub.folder = speechbrain_folder
    encoder = SpeakerEncoder.from_pretrained("someone/encoder", cache_dir=tmp_path)
    (speechbrain_folder / "example1.wav").unlink()
    assert _downloaded(hub) == {"config.json", "hyperparams.yaml", "embedding_model.ckpt"}
    assert encoder.config.base_model_name == "someone/encoder"
    local = SpeakerEncoder.from_pretrained(speechbrain_folder)
    assert (encoder.encode(waveform(8000)) - local.encode(waveform(8000))).abs().max() == 0


def test_own_repository_of_the_hub_and_its_cache(hub, tmp_path, make_encoder, waveform, use_hub):
    encoder = make_encoder("dvector")
    encoder.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "pytorch_model.bin").write_bytes(b"not needed")
    hub.folder = tmp_path / "saved"
    cache = tmp_path / "cache"
    loaded = SpeakerEncoder.from_pretrained("someone/encoder", cache_dir=cache)
    assert _downloaded(hub) == {"config.json", "preprocessor_config.json", "model.safetensors"}
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
            r"Unknown encoder 'ecappa'. Did you mean 'ecapa'\? Known: dvector, ecapa, wavlm",
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
    with pytest.raises(UserError, match="is a file; an encoder is a folder"):
        SpeakerEncoder.from_pretrained(tmp_path / "config.json")
    (tmp_path / "config.json").unlink()
    make_encoder("dvector").save_pretrained(tmp_path / "checkpoint-20")
    with pytest.raises(UserError, match=r"has checkpoints; name one: .*checkpoint-20"):
        SpeakerEncoder.from_pretrained(tmp_path)
    assert SpeakerEncoder.from_pretrained(str(tmp_path / "checkpoint-20")).embedding_dim == 24
    (tmp_path / "checkpoint-20").rename(tmp_path / "model")
    with pytest.raises(UserError, match=r"folder of a run; name its model: .*model"):
        SpeakerEncoder.from_pretrained(tmp_path)
