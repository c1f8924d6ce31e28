"""Imports point one way, and what is asked for first comes quickly."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "speaker_encoder"
GROUND = {"modeling", "losses", "corpora", "audio"}
MIDDLE = {"training", "export", "verification", "hub", "plots", "doctor"}


def imported_folders(path: Path) -> set[str]:
    """The folders of the package that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "speaker_encoder" and len(parts) > 1:
                found.add(parts[1])
    return found


def test_imports_point_from_commands_to_tools_to_the_ground():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts[0]
        imported = imported_folders(path)
        if folder in GROUND:
            wrong += [f"{path}: {name}" for name in imported & (MIDDLE | {"cli"})]
        elif folder in MIDDLE:
            wrong += [f"{path}: {name}" for name in imported & {"cli"}]
    assert not wrong


def test_losses_and_audio_know_no_models():
    for folder in ("losses", "audio", "corpora"):
        for path in (PACKAGE / folder).rglob("*.py"):
            assert "modeling" not in imported_folders(path), path


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, speaker_encoder, speaker_encoder.cli.main, speaker_encoder.training\n"
        "heavy = {'torch', 'transformers', 'speechbrain', 'umap', 'matplotlib', 'comet_ml', 'av'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_help_comes_in_a_second_and_has_an_example():
    for script in ("train_encoder.py", "create_speaker_emb_dataset.py"):
        seconds = []
        for _ in range(3):  # the least of three: the machine may be busy
            start = time.perf_counter()
            shown = subprocess.run(
                [sys.executable, script, "--help"],
                capture_output=True,
                text=True,
                check=True,
                cwd=PACKAGE.parent,
            )
            seconds.append(time.perf_counter() - start)
        assert "example" in shown.stdout
        assert min(seconds) < 1.0, seconds


def test_every_capability_of_the_older_systems_points_to_its_test() -> None:
    """The table of 80 rows in docs/migration.md."""
    text = (ROOT / "docs" / "migration.md").read_text()
    rows = re.findall(r"^\| (\d+) \|.*`([\w/]+\.py)::(\w+)` \|$", text, flags=re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, 81))
    for number, file, function in rows:
        source = (ROOT / "tests" / file).read_text()
        assert f"def {function}(" in source, number
