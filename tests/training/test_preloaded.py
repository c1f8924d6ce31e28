"""A forked process is as a fresh one that has imported the same: what both start with, and end."""

import json
import os
import signal
import subprocess
import sys

import preloaded
import pytest
from conftest import REPOSITORY
from preloaded import Preloaded

pytestmark = pytest.mark.slow

TELL = """
import atexit, importlib, json, os, random, signal, sys, threading, time, warnings
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
import logging, multiprocessing, numpy, torch, transformers
print(json.dumps({
    "environment": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv, "name": __name__,
    "umask": os.umask(0), "terminal": [file.isatty() for file in (sys.stdin, sys.stdout)],
    "signals": {number.name: str(signal.getsignal(number)) for number in signal.Signals},
    "blocked": [*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))],
    "warnings": [one[0] for one in warnings.filters[:3]],
    "threads": [torch.get_num_threads(), torch.get_num_interop_threads(), threading.active_count()],
    "cuda": torch.cuda.is_initialized(), "start": multiprocessing.get_start_method(),
    "torch": [str(torch.get_default_dtype()), torch.is_grad_enabled(),
              torch.are_deterministic_algorithms_enabled(), torch.is_inference_mode_enabled()],
    "loggers": [logging.root.level, len(logging.root.handlers), logging.root.manager.disable,
                transformers.logging.get_verbosity()],
    "recursion": sys.getrecursionlimit(), "niceness": os.nice(0),
}))
print([random.random(), numpy.random.random(), torch.rand(1).item()])
atexit.register(print, "the end")
threading.Thread(target=lambda: (time.sleep(0.2), print("of a thread"))).start()
print("to stderr", file=sys.stderr)
sys.exit(3)
"""


def test_what_a_process_begins_with_and_how_it_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", "of this test")
    monkeypatch.setenv("COLUMNS", "70")
    (tmp_path / "tell.py").write_text(TELL)
    arguments = [tmp_path / "tell.py", json.dumps(preloaded._HEAVY)]
    environment = preloaded._of_now()
    umask = os.umask(0o027)
    try:
        fresh = subprocess.Popen(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = fresh.communicate(timeout=120)
        forked = [Preloaded(arguments[0], arguments[1:], tmp_path, environment) for _ in range(2)]
        told = [process.communicate(timeout=120) for process in forked]
    finally:
        os.umask(umask)
    assert fresh.returncode == 3 and err == "to stderr\n", err
    state, numbers, *rest = out.splitlines()
    assert rest == ["of a thread", "the end"] and json.loads(state)["umask"] == 0o027
    drawn = json.loads(numbers)
    for process, (forked_out, forked_err) in zip(forked, told, strict=True):
        forked_state, forked_numbers, *forked_rest = forked_out.splitlines()
        assert json.loads(forked_state) == json.loads(state)
        assert (process.returncode, forked_err, forked_rest) == (3, err, rest)
        drawn += json.loads(forked_numbers)
    assert len(set(drawn)) == 9  # nobody's generator is where another's is


def test_an_error_has_its_traceback_and_a_signal_its_number(tmp_path):
    script = tmp_path / "fail.py"
    script.write_text("import sys, time\nif sys.argv[1:]: time.sleep(60)\nraise KeyError('x')\n")
    failed = Preloaded(script, [], tmp_path)
    out, err = failed.communicate(timeout=60)
    assert (failed.returncode, out) == (1, "")
    assert "Traceback" in err and "KeyError: 'x'" in err
    ended = Preloaded(script, ["wait"], tmp_path)
    ended.send_signal(signal.SIGTERM)
    ended.communicate(timeout=60)
    assert ended.returncode == -signal.SIGTERM


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "COMET_URL_OVERRIDE", "OMP_NUM_THREADS"])
def test_what_is_read_on_import_needs_a_fresh_process(name):
    environment = preloaded._of_now()
    assert not Preloaded.read_on_import({**os.environ, **preloaded._ALWAYS})
    assert not Preloaded.read_on_import({**environment, "SPEAKER_ENCODER_CACHE": "here"})
    changed = {**environment, name: "7"}
    assert Preloaded.read_on_import(changed) == [name]
    with pytest.raises(AssertionError, match=rf"read on import what is set here: \['{name}'\]"):
        Preloaded(REPOSITORY / "train_encoder.py", [], REPOSITORY, changed)
