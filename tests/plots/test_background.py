import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from speaker_encoder.plots import BackgroundPlotter, FinishedPlot

LINES = [{"step": step, "split": "train", "loss": 1.0 / step} for step in range(1, 20)]
pytestmark = pytest.mark.slow


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def plotter() -> Iterator[BackgroundPlotter]:
    plotter = BackgroundPlotter(max_pending=4)
    yield plotter
    plotter.close(timeout=0.0)


def warnings_of(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


def freeze(plotter: BackgroundPlotter) -> psutil.Process:
    """Stops the plotting process, so that what is submitted waits."""
    assert plotter._process is not None
    process = psutil.Process(plotter._process.pid)
    process.suspend()
    return process


def test_draws_in_another_process(
    plotter: BackgroundPlotter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # So few that UMAP's import, tens of seconds, is spared.
    embeddings = torch.randn(4, 8, dtype=torch.bfloat16, requires_grad=True)
    start = time.perf_counter()
    plotter.submit("curve", tmp_path / "curve.png", metrics=LINES, step=19)
    plotter.submit(
        "umap",
        tmp_path / "plots" / "val_umap_000019.png",
        name="val_umap",
        step=19,
        embeddings=embeddings,
        labels=["a", "b"] * 2,
        title="validation, step 19",
        annotations=None,
    )
    assert plotter.finished() == []
    assert time.perf_counter() - start < 2.0
    plotter.close()
    found = plotter.finished()
    assert all(isinstance(plot, FinishedPlot) for plot in found)
    assert found == [
        (tmp_path / "curve.png", "curve", 19),
        (tmp_path / "plots" / "val_umap_000019.png", "val_umap", 19),
    ]
    assert all(plot.path.read_bytes().startswith(b"\x89PNG") for plot in found)
    assert plotter.finished() == []
    assert warnings_of(caplog) == ""


def test_the_process_is_niced_has_one_thread_and_ignores_ctrl_c(
    plotter: BackgroundPlotter, tmp_path: Path
) -> None:
    plotter.submit("curve", tmp_path / "curve.png", metrics=LINES)
    wait_for(plotter.finished)
    process = psutil.Process(plotter._process.pid)
    assert process.nice() == 19
    assert process.environ()["OMP_NUM_THREADS"] == "1"
    assert os.getsid(process.pid) != os.getsid(0)  # a terminal's Ctrl-C does not reach it
    process.send_signal(signal.SIGINT)
    plotter.submit("curve", tmp_path / "again.png", metrics=LINES)
    wait_for(plotter.finished)
    assert process.is_running()


def test_failures_are_warnings(
    plotter: BackgroundPlotter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    plotter.submit("curve", tmp_path / "empty.png", metrics=[])
    plotter.submit("curve", tmp_path / "file" / "curve.png", metrics=LINES)
    plotter.submit("curve", tmp_path / "wrong.png", metrics=LINES, colour="red")
    plotter.submit("curve", tmp_path / "good.png", metrics=LINES)
    plotter.close()
    assert [plot.name for plot in plotter.finished()] == ["good"]
    text = warnings_of(caplog)
    assert "empty.png failed: UserError: None of the 0 metric lines" in text
    assert "curve.png failed: NotADirectoryError" in text or "FileExistsError" in text
    assert "wrong.png failed: TypeError" in text


def test_the_oldest_waiting_umap_is_dropped(
    plotter: BackgroundPlotter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plotter.submit("curve", tmp_path / "first.png", metrics=LINES)
    wait_for(plotter.finished)
    process = freeze(plotter)
    rows = np.random.default_rng(0).normal(size=(4, 3))
    start = time.perf_counter()
    for step in range(6):
        arguments = {"embeddings": rows, "labels": ["a", "a", "b", "b"], "title": ""}
        plotter.submit("umap", tmp_path / f"umap_{step}.png", step=step, **arguments)
        plotter.submit("curve", tmp_path / "curve.png", step=step, metrics=LINES)
    assert time.perf_counter() - start < 2.0
    process.resume()
    plotter.close()
    found = plotter.finished()
    # The newer curve replaced the older ones; three UMAPs had room beside it.
    assert {plot.step for plot in found if plot.name == "curve"} == {5}
    assert [plot.step for plot in found if plot.name != "curve"] == [3, 4, 5]
    text = warnings_of(caplog)
    assert text.count("Plots are asked for faster than drawn: dropped") == 3
    assert "dropped " + str(tmp_path / "umap_0.png") in text
    assert not (tmp_path / "umap_0.png").exists()


def test_a_killed_process_is_replaced(
    plotter: BackgroundPlotter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        plotter.submit("curve", tmp_path / f"{number}.png", metrics=LINES)
        wait_for(plotter.finished)
        freeze(plotter)
        plotter.submit("curve", tmp_path / "next.png", metrics=LINES)
        plotter._process.kill()
        plotter._process.wait()
        wait_for(plotter.finished)
    assert warnings_of(caplog).count("The plotting process ended with exit code -9") == 2


def test_a_process_that_cannot_start_ends_plotting_but_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    plotter = BackgroundPlotter()
    for number in range(5):
        plotter.submit("curve", tmp_path / f"{number}.png", metrics=LINES)
        plotter._process.wait()
        assert plotter.finished() == []
    plotter.close()
    text = warnings_of(caplog)
    assert "ended with exit code 7: no such library" in text
    assert text.count("the plotting process fails again and again") >= 1
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    plotter = BackgroundPlotter()
    plotter.submit("curve", tmp_path / "x.png", metrics=LINES)
    plotter.close()
    assert "x.png in the background: [Errno 2]" in warnings_of(caplog)


def test_close_gives_up_in_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plotter = BackgroundPlotter()
    plotter.submit("curve", tmp_path / "first.png", metrics=LINES)
    wait_for(plotter.finished)
    freeze(plotter)
    plotter.submit("curve", tmp_path / "late.png", metrics=LINES)
    start = time.perf_counter()
    plotter.close(timeout=0.3)
    assert time.perf_counter() - start < 5.0
    assert "late.png: not drawn before the end" in warnings_of(caplog)
    assert plotter._process.returncode is not None
    assert not Path(plotter._folder.name).exists()
    plotter.close()
    with pytest.raises(ValueError, match="The background plotter is closed"):
        plotter.submit("curve", tmp_path / "x.png", metrics=LINES)


def test_unused_it_starts_nothing() -> None:
    with BackgroundPlotter() as plotter:
        assert plotter.finished() == []
    assert plotter._process is None
    with pytest.raises(ValueError, match=r"Unknown kind of plot: 'tsne'\. Known: umap, curve"):
        BackgroundPlotter().submit("tsne", "x.png")


TRAINING = """
import os, sys, time
from pathlib import Path
from speaker_encoder.plots import BackgroundPlotter
plotter = BackgroundPlotter()
plotter.submit("curve", sys.argv[1], metrics=[{"step": 1, "split": "train", "loss": 1.0}])
heavy = {"matplotlib", "umap", "numba"} & set(sys.modules)
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(15)  # a data-loader worker that outlives training for a while
    os._exit(0)
print(plotter._process.pid, plotter._folder.name, heavy or "light", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("mode", ["plain", "fork"])
def test_it_dies_with_its_parent(tmp_path: Path, mode: str) -> None:
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(tmp_path / "curve.png"), mode],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert training.stdout is not None
    pid, folder, heavy = training.stdout.readline().split()
    assert heavy == "light"
    wait_for((tmp_path / "curve.png").exists)
    training.kill()
    training.wait()
    wait_for(lambda: not psutil.pid_exists(int(pid)), seconds=10.0)
    wait_for(lambda: not Path(folder).exists(), seconds=2.0)
