"""How much memory this process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_NEWER = ("memory.max", "memory.current", "inactive_file")
_OLDER = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_bytes() -> int:
    """Gives the bytes that are free on this machine, and within each control group around it.

    A container, a SLURM job or a systemd unit may have less than the machine. What a group's files
    take in the system's cache is free: it is given up when it is wanted.
    """
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *_left_in_groups()]))


def _left_in_groups() -> Iterator[int]:
    """What is left of the limit of each group that has one."""
    for folder, (limit_file, used_file, cache_name) in _group_folders():
        try:
            limit = int((folder / limit_file).read_text())  # or "max": there is none
            used = int((folder / used_file).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        counts = dict(line.split(maxsplit=1) for line in lines)
        yield limit - used + int(counts.get(cache_name, 0))


def _group_folders() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of the groups of this process, from its own to the outermost that is seen."""
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mount, names = _MOUNT / "memory", _OLDER
        elif not controllers:
            mount, names = _MOUNT, _NEWER
        else:
            continue
        own = mount / path.strip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(mount):
                yield folder, names
