"""What a push does when the Hub or the network fails it, and that nothing half is left there."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hub_server import WRITE_TOKEN
from huggingface_hub.utils import get_session

from speaker_encoder import SpeakerEncoder
from speaker_encoder.cli.main import main
from speaker_encoder.errors import UserError
from speaker_encoder.hub.push import HubError, PushOptions, push_folder

OPTIONS = PushOptions("someone/mine", retry_seconds=0.01)
FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}


@pytest.fixture
def saved(make_encoder, tmp_path, unchecked, monkeypatch):
    """A model's folder, and a client that does not wait between its own attempts."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    make_encoder("dvector").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def commits(hub) -> list:
    repository = hub.repositories.get("someone/mine")
    return [] if repository is None else [c for c in repository.commits if len(c.files) > 1]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("401", "does not accept the token, or there is none.*set HF_TOKEN.*hf auth login"),
        ("403", "no right to write there. Use one of 'someone'"),
        ("404", "no such repository or branch"),
        ("418", "refuses it .status 418."),
    ],
)
def test_refused_at_once(hub, saved, kind, message):
    hub.order(kind, "/api/repos/create", times=99)
    with pytest.raises(HubError, match=message) as caught:
        push_folder(saved, OPTIONS)
    assert "The model is unharmed. Push it later with:" in str(caught.value)
    assert f"speaker-encoder push {saved} --repo_id someone/mine" in str(caught.value)
    assert WRITE_TOKEN not in str(caught.value)
    assert [r.path for r in hub.received if r.method == "POST"] == ["/api/repos/create"]
    assert not commits(hub)


def test_wrong_token(hub, saved, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    with pytest.raises(HubError, match="does not accept the token"):
        push_folder(saved, OPTIONS)
    assert not hub.repositories


@pytest.mark.parametrize("path", ["repos/create", "/preupload/", "/batch", "/storage/", "/commit/"])
@pytest.mark.parametrize("kind", ["500", "cut"])
def test_once_and_then_fine(hub, saved, path, kind):
    hub.order(kind, path, times=1)
    push_folder(saved, OPTIONS)
    assert len(commits(hub)) == 1
    assert set(commits(hub)[0].files) >= FILES


def test_server_that_stays_broken_is_asked_three_times(hub, saved):
    hub.order("503", "/api/repos/create", times=99)
    with pytest.raises(HubError, match=r"trouble of its own \(status 503\). Try again later"):
        push_folder(saved, OPTIONS)
    assert [request.path for request in hub.received] == ["/api/repos/create"] * 3


@pytest.mark.parametrize("path", ["/api/repos/create", "/storage/", "/commit/"])
def test_silent_hub_is_out_of_reach(hub, saved, path, monkeypatch):
    monkeypatch.setattr("speaker_encoder.hub.push._NUM_ATTEMPTS", 1)
    hub.order("slow", path, times=99, seconds=60)
    usual = get_session().timeout
    with pytest.raises(HubError, match=r"the Hub cannot be reached \(ReadTimeout"):
        push_folder(saved, replace(OPTIONS, answer_seconds=0.2))
    assert not commits(hub)
    assert get_session().timeout == usual  # it is the whole process's client


def test_private_push_to_a_public_repository_is_refused(hub, saved):
    hub.publish("someone/mine", {"a.txt": b"public"})
    with pytest.raises(UserError, match=r"someone/mine exists and is public; nothing was sent"):
        push_folder(saved, replace(OPTIONS, private=True))
    assert {request.path for request in hub.received if request.method == "POST"} == {
        "/api/repos/create"
    }
    assert len(hub.repositories["someone/mine"].commits) == 1


def test_nobody_listens(hub, saved):
    hub.stop()
    with pytest.raises(HubError, match=r"the Hub cannot be reached \(Connect"):
        push_folder(saved, OPTIONS)


def test_offline_mode(hub, saved, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"cannot be reached \(OfflineModeIsEnabled"):
        push_folder(saved, OPTIONS)


def test_cut_in_the_middle_and_repeated(hub, saved):
    hub.order("cut", "/storage/", method="PUT", times=99)
    with pytest.raises(HubError, match="cannot be reached"):
        push_folder(saved, OPTIONS)
    assert not commits(hub) and not hub.objects
    hub.faults.clear()
    push_folder(saved, OPTIONS)
    assert len(commits(hub)) == 1
    assert set(commits(hub)[0].files) >= FILES
    push_folder(saved, OPTIONS)  # nothing has changed: no empty commit
    assert len(commits(hub)) == 1


UNCHECKED_PUSH = """
import sys
import speaker_encoder.hub.push as push
from speaker_encoder.cli.main import main
push.check_contents = lambda *_: None
sys.exit(main(["push", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_killed_in_the_middle_and_repeated(hub, make_encoder, hub_environment, tmp_path):
    make_encoder("dvector").save_pretrained(tmp_path / "saved")
    hub.order("slow", "/storage/", method="PUT", seconds=60)
    arguments = [str(tmp_path / "saved"), "--repo_id", "someone/mine", "--private"]
    command = [sys.executable, "-c", UNCHECKED_PUSH, *arguments]  # it is killed after its check
    process = subprocess.Popen(command, env=hub_environment, cwd=tmp_path)
    limit = time.monotonic() + 120
    while not any("/storage/" in request.path for request in hub.received):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not commits(hub)
    command = [sys.executable, "-m", "speaker_encoder", "push", *arguments]
    done = subprocess.run(
        command, env=hub_environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "pushed 4 files to" in done.stdout
    assert len(commits(hub)) == 1
    assert set(commits(hub)[0].files) >= FILES
    assert hub.repositories["someone/mine"].private


@pytest.mark.slow
def test_ended_by_a_signal_within_an_upload(hub, make_encoder, hub_environment, tmp_path):
    make_encoder("dvector").save_pretrained(tmp_path / "saved")
    (tmp_path / "temporary").mkdir()
    hub.order("slow", "/storage/", method="PUT", seconds=600)
    environment = {**hub_environment, "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-c", UNCHECKED_PUSH, str(tmp_path / "saved")]
    process = subprocess.Popen([*command, "--repo_id", "someone/mine"], env=environment)
    limit = time.monotonic() + 120
    while not any("/storage/" in request.path for request in hub.received):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.05)
    assert list((tmp_path / "temporary").iterdir())
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not list((tmp_path / "temporary").iterdir())
    assert not commits(hub)


@pytest.mark.parametrize("name", ["mine", "some one/mine", "a/b/c", "../mine", "a/b--c", ""])
def test_names_that_no_repository_can_have(hub, saved, name):
    with pytest.raises(UserError, match="wanted owner/name"):
        push_folder(saved, PushOptions(name))
    assert not hub.received


def test_the_command_and_its_exit_codes(hub, saved, capsys):
    command = ["push", str(saved), "--repo_id", "someone/mine", "--public", "--dtype", "bfloat16"]
    hub.order("401", "/api/repos/create", times=1)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "error: Could not push to someone/mine: the Hub does not accept" in error
    assert "--repo_id someone/mine --public --dtype bfloat16" in error
    assert main([*command, "--license", "mit"]) == 2
    assert "whose licence is 'apache-2.0'; it is kept" in capsys.readouterr().err
    assert main(command[:5]) == 0
    assert capsys.readouterr().out.startswith(f"pushed 4 files to {hub.url}/someone/mine, commit ")
    options = ["--revision", "draft", "--dataset", "someone/voices", "--commit_message", "Draft"]
    assert main([*command, *options]) == 0
    repository = hub.repositories["someone/mine"]
    assert set(repository.heads) == {"main", "draft"}
    draft, published = repository.heads["draft"], repository.heads["main"]
    assert draft.message == "Draft" and b"someone/voices" in draft.files["README.md"]
    assert b"someone/voices" not in published.files["README.md"]
    assert SpeakerEncoder.from_pretrained(
        "someone/mine", revision="draft", cache_dir=saved.parent / "cache"
    )


def test_folders_without_a_model(hub, tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        push_folder(tmp_path / "nowhere", OPTIONS)
    with pytest.raises(UserError, match=r"holds no model: neither model/config\.json"):
        push_folder(tmp_path, OPTIONS)


def test_untrained_head_is_not_pushed(hub, make_encoder):
    encoder = make_encoder("wavlm")
    encoder.config.untrained_head = True
    with pytest.raises(UserError, match="random weights"):
        encoder.push_to_hub("someone/mine")
    assert not hub.received


def test_license_of_the_base_model_is_kept(hub, make_encoder, unchecked):
    with pytest.raises(UserError, match=r"whose licence is 'cc-by-sa-3\.0'; it is kept"):
        make_encoder("wavlm").push_to_hub("someone/mine", license="mit")
    assert not hub.received
