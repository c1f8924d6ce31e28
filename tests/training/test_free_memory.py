"""Memory that may still be taken, in control groups of both versions."""

import psutil
import pytest

from speaker_encoder.training import free_memory
from speaker_encoder.training.free_memory import free_bytes

NEWER = ("memory.max", "memory.current", "inactive_file")
OLDER = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.fixture(params=["newer", "older"])
def groups(request, tmp_path, monkeypatch):
    """Gives what writes the limit of a group, by its path below the outermost."""
    names, mount = (NEWER, tmp_path) if request.param == "newer" else (OLDER, tmp_path / "memory")
    own = tmp_path / "own"
    lines = ["4:memory:/a/b", "2:cpu:/other"] if request.param == "older" else ["0::/a/b"]
    own.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(free_memory, "_GROUPS", own)
    monkeypatch.setattr(free_memory, "_MOUNT", tmp_path)

    def write(path, limit, used, cached):
        folder = mount / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (limit, used, f"anon 7\n{names[2]} {cached}"), strict=False):
            (folder / (name if name != names[2] else "memory.stat")).write_text(f"{value}\n")

    return write


def test_the_narrowest_group_counts(groups):
    groups("a/b", 90_000_000, 40_000_000, 0)
    assert free_bytes() == 50_000_000
    groups("a", 60_000_000, 40_000_000, 10_000_000)  # files in the cache are given up
    assert free_bytes() == 30_000_000
    groups("", 10_000_000, 40_000_000, 0)
    assert free_bytes() == 0


def test_groups_without_a_limit_and_machines_without_groups(groups, monkeypatch, tmp_path):
    whole = psutil.virtual_memory().total
    groups("a/b", "max", 40_000_000, 0)
    assert 1e8 < free_bytes() <= whole
    monkeypatch.setattr(free_memory, "_GROUPS", tmp_path / "none")
    assert 1e8 < free_bytes() <= whole


def test_this_machine():
    assert 1e8 < free_bytes() <= psutil.virtual_memory().available * 1.2
