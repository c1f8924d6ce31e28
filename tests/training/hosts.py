"""Two hosts on one machine, and the processes that train there; no test."""

import os
import subprocess
from pathlib import Path

from conftest import TrainingRun

NAMES = ("node-a", "node-b")
_ADDRESSES = ("10.77.0.1", "10.77.0.2")
_WIRES = ("wire-a", "wire-b")
# In a user namespace of its own, so that it needs no rights and leaves nothing behind. The shell
# is on the first host; the second one is that of a sleeping process.
_SET_UP = f"""
set -e
printf '127.0.0.1 localhost\\n{_ADDRESSES[0]} {NAMES[0]}\\n{_ADDRESSES[1]} {NAMES[1]}\\n' > "$1"
mount --bind "$1" /etc/hosts
hostname {NAMES[0]}
ip link set lo up
unshare --net --uts sleep infinity &
other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip link add {_WIRES[0]} type veth peer name {_WIRES[1]} netns $other
ip addr add {_ADDRESSES[0]}/24 dev {_WIRES[0]}
nsenter --target $other --net --uts sh -c 'hostname {NAMES[1]}; ip link set lo up
    ip addr add {_ADDRESSES[1]}/24 dev {_WIRES[1]}; ip link set {_WIRES[1]} up'
ip link set {_WIRES[0]} up
echo $$ $other
read -r end || true
kill $other
"""
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--uts", "--mount", "--kill-child")
_ENTER = ("nsenter", "--preserve-credentials", "--user", "--net", "--uts", "--mount")


class HostsRefusedError(Exception):
    """The kernel, or the policy of this machine, does not let us make them."""


class TwoHosts:
    """Two hosts that know each other by name, for as long as they are open.

    Args:
        folder: for what they need.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> "TwoHosts":
        command = [*_UNSHARE, "bash", "-c", _SET_UP, "hosts", str(self._folder / "hosts")]
        try:
            self._shell = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise HostsRefusedError(str(error)) from error
        self._targets = self._shell.stdout.readline().split()
        if not self._targets:
            raise HostsRefusedError(self._shell.communicate()[1].strip())
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.communicate()

    def on(self, host: int, *command: str) -> list[str]:
        """Gives the command line that runs a command, in this process's folder, on a host."""
        target = f"--target={self._targets[host]}"
        return [*_ENTER, target, "--", "env", f"--chdir={os.getcwd()}", *command]

    def cut_wire(self) -> None:
        """Lets everything between the hosts get lost from now on; nobody is told."""
        for host, wire in enumerate(_WIRES):
            subprocess.run(self.on(host, "ip", "link", "set", wire, "down"), check=True)


def process_of(run: TrainingRun, rank: int) -> int | None:
    """Gives the process of this number that trains a run, None while there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if str(run.config_path).encode() in command and f"RANK={rank}".encode() in variables:
            return int(folder.name)
    return None


def parent_of(pid: int) -> int | None:
    """Gives the parent of a process, None when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))
