"""A Space runs from its own folder, with the package and the encoder that lie in it."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib import metadata

import pytest
import soundfile
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip("gradio", reason="pip install 'speaker-encoder[demo]'")

from speaker_encoder import SpeakerEncoder
from speaker_encoder.audio import read_audio
from speaker_encoder.cli.main import main
from speaker_encoder.demo.space import REQUIREMENTS

WATCH = """
import ast, json, os, sys
from importlib import metadata
from pathlib import Path

import app
import speaker_encoder
from packaging.utils import canonicalize_name
from speaker_encoder.demo.scoring import score_recordings
from speaker_encoder.demo.spectrogram import draw_spectrogram

score = score_recordings(app.encoder, "a.wav", "a.wav")
draw_spectrogram("a.wav", 16000, "a").savefig("a.png")
asked = set()
for module in [m for name, m in sys.modules.items() if name.startswith("speaker_encoder")]:
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.Import):
            asked |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            asked.add(node.module.split(".")[0])
owners = metadata.packages_distributions()
asked = (asked & set(sys.modules) & set(owners)) - sys.stdlib_module_names
needed = [canonicalize_name(owners[name][0]) for name in asked]
_, address, _ = app.demo.launch(server_name="127.0.0.1", ssr_mode=False, quiet=True,
                                prevent_thread_lock=True)
about = {"file": speaker_encoder.__file__, "needed": sorted(needed), "score": score}
print(json.dumps({**about, "address": address}), flush=True)
input()
os._exit(0)
"""


def installed_with(packages):
    """The packages, and all that pip installs for them here."""
    found = set()
    waiting = list(packages)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            for line in metadata.requires(name) or []:
                requirement = Requirement(line)
                marker = requirement.marker
                with contextlib.suppress(metadata.PackageNotFoundError):
                    metadata.version(requirement.name)
                    if marker is None or marker.evaluate({"extra": ""}):
                        waiting.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    encoder = SpeakerEncoder.from_pretrained("dvector")
    run = tmp_path_factory.mktemp("secret_place") / "run"
    encoder.save_pretrained(run / "model")
    folder = tmp_path_factory.mktemp("space") / "mine"
    assert main(["demo", str(run), "--threshold", "0.625", "--space", str(folder)]) == 0
    return folder


def test_the_files_are_those_of_a_space(space):
    header = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert header["sdk"] == "gradio" and header["app_file"] == "app.py"
    assert header["license"] == "apache-2.0"
    assert header["title"] == "Who is speaking - run"
    assert re.fullmatch(r"\d+\.\d+\.\d+", header["sdk_version"])
    required = (space / "requirements.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in required] == list(REQUIREMENTS)
    assert not any("+" in line for line in required)
    assert (space / "model" / "model.safetensors").is_file()
    assert not list(space.rglob("__pycache__"))
    for path in space.rglob("*"):
        if path.is_file():
            assert b"secret_place" not in path.read_bytes(), path


@pytest.mark.slow
def test_it_runs_from_its_own_folder(space, recordings):
    waveform = read_audio(next(iter(recordings.values()))[0], 16000)
    soundfile.write(space / "a.wav", waveform, 16000)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment.update(PYTHONDONTWRITEBYTECODE="1", GRADIO_ANALYTICS_ENABLED="False")
    process = subprocess.Popen(
        [sys.executable, "-c", WATCH], cwd=space, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        lines = iter(process.stdout.readline, "")
        found = json.loads(next(line for line in lines if line.startswith("{")))
        assert found["file"].startswith(str(space))
        assert found["score"] == pytest.approx(1.0, abs=1e-5)
        assert {"torch", "soundfile", "matplotlib", "gradio"} <= set(found["needed"])
        # Where the package itself is installed its metadata is beside it.
        needed = set(found["needed"]) - {"speaker-encoder"}
        assert needed <= installed_with([*REQUIREMENTS, "gradio"])
        with urllib.request.urlopen(found["address"] + "config") as answer:
            config = json.load(answer)
        sliders = [one["props"] for one in config["components"] if one["type"] == "slider"]
        assert [slider["value"] for slider in sliders] == [0.625]
    finally:
        process.communicate("\n", timeout=60)


def test_a_published_encoder_is_named_not_copied(tmp_path):
    from speaker_encoder.cli.demo import _hub_id, _public_name

    assert _hub_id("ecapa") == "speechbrain/spkrec-ecapa-voxceleb"
    assert _hub_id("someone/mine") == "someone/mine"
    assert _hub_id("dvector") is None
    assert _hub_id(str(tmp_path)) is None
    assert _public_name(str(tmp_path)) == tmp_path.name


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--threshold", "1.5"], "must be a cosine in"),
        (["--threshold", "0.5", "--results", "r.json"], "both give a threshold"),
        (["--port", "70000"], "--port must be in"),
        (["--space", "."], "is not an empty folder"),
    ],
)
def test_what_must_be_changed(capsys, arguments, reason):
    assert main(["demo", "dvector", *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_a_missing_gradio_is_named_before_anything_is_loaded(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "gradio" else found(name)
    )
    assert main(["demo", "no_such_model"]) == 2
    assert "pip install 'speaker-encoder[demo]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_command_ends_and_leaves_no_recording(tmp_path, name):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    environment.pop("GRADIO_TEMP_DIR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "speaker_encoder", "demo", "dvector"],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        address = process.stdout.readline().split()[0]
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
        request = urllib.request.Request(
            address + "gradio_api/upload", body + b"planted recording\r\n--x--\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
        )  # fmt: skip
        with urllib.request.urlopen(request) as answer:
            (uploaded,) = json.load(answer)
        assert uploaded.startswith(str(tmp_path)) and os.path.isfile(uploaded)
        process.send_signal(signal.Signals[name])
        assert process.wait(60) == 0
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        process.kill()
