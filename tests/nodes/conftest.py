"""Two nodes on this machine that share one folder: everything else that a program writes to is each one's own.

A node is a set of Linux namespaces: mounts, with its own /tmp and /dev/shm and the home in it; host name; network,
with one cable between the two.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import cannot_run
from held_fits import WAIT, wait_for

from pacehpc.backends.compile import compiler

ROOT = Path(__file__).parents[2]
NAMES = ("n1", "n2")
ADDRESSES = {"n1": "10.77.0.1", "n2": "10.77.0.2"}
SET_UP = """
set -e
hostname {name}
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
for folder in {kept}; do
    case $folder in /tmp/*) mkdir -p /mnt$folder; mount --bind $folder /mnt$folder;; esac
done
mount -t tmpfs tmpfs /tmp
for folder in {kept}; do
    case $folder in /tmp/*) mkdir -p $folder; mount --bind /mnt$folder $folder;; esac
done
mount -t tmpfs tmpfs /dev/shm
mount -t sysfs sysfs /sys
mount --bind {work}/hosts /etc/hosts
mkdir /tmp/home
ip link set lo up
echo up
exec sleep 100000
"""
LAUNCHER = """#!/bin/sh
# as ssh: [options] host command
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
exec nsenter -t "$(cat {work}/$host.pid)" -m -u -n -i sh -c "$*"
"""


class Nodes:
    """Runs commands on the nodes."""

    def __init__(self, work: Path, shared: Path, late: Path) -> None:
        """work: files of the nodes themselves. shared: what both see. late: the library of late.cpp."""
        self.work, self.shared, self.late = work, shared, late

    def pid(self, name: str) -> int:
        return int((self.work / f"{name}.pid").read_text())

    def processes(self, name: str) -> list[int]:
        """What runs on a node."""
        return processes_of(self.pid(name))

    def start(self, name: str, command: list[str], cwd: Path, late: float = 0.0, **options) -> subprocess.Popen:
        """A command on a node; late: seconds until it sees what the other one makes in the shared folder."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PMI", "OMPI", "XDG", "PACEHPC"))}
        changes = {"HOME": "/tmp/home", "TMPDIR": "/tmp", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        if late:
            changes |= {"LATE_FOLDER": str(self.shared), "LATE_SECONDS": str(late)}
            command = ["sh", "-c", self.preload() + 'exec "$@"', "sh", *command]
        inside = f"cd {shlex.quote(str(cwd))} && exec {shlex.join(command)}"
        enter = ["nsenter", "-t", str(self.pid(name)), "-m", "-u", "-n", "-i", "sh", "-c", inside]
        return subprocess.Popen(enter, env={**kept, **changes}, text=True, **options)

    def run(self, name: str, command: list[str], cwd: Path, late: float = 0.0) -> subprocess.CompletedProcess:
        with self.start(name, command, cwd, late, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            text, _ = process.communicate(timeout=WAIT)
        return subprocess.CompletedProcess(command, process.returncode, text)

    def preload(self) -> str:
        """For a shell: the library of late.cpp on whichever node this is."""
        made = "$(hostname | tr 12 21)"
        return f"export LD_PRELOAD={self.late} LATE_OWN={self.work}/$(hostname) LATE_OTHERS={self.work}/{made}; "

    def mpirun(self, ranks_of_node: int, *arguments: str, late: float = 0.0) -> list[str]:
        """The command for pacehpc on both nodes, to be given on one of them."""
        command = [str(Path(sys.executable).parent / "mpirun"), "-launcher", "ssh"]
        command += ["-launcher-exec", str(self.work / "launcher"), "-hosts", ",".join(NAMES)]
        command += ["-ppn", str(ranks_of_node), "-n", str(len(NAMES) * ranks_of_node)]
        preload = ["sh", "-c", self.preload() + 'exec "$@"', "sh"] if late else []
        return [*command, *preload, sys.executable, "-m", "pacehpc", *arguments]


@pytest.fixture(scope="session")
def nodes(tmp_path_factory) -> Iterator[Nodes]:
    work, shared = tmp_path_factory.mktemp("nodes"), tmp_path_factory.mktemp("shared")
    missing = [name for name in ("unshare", "nsenter", "ip", "mount") if shutil.which(name) is None]
    if not missing and subprocess.run(["unshare", *FLAGS, "true"], capture_output=True, check=False).returncode:
        missing = ["the right to make namespaces"]
    if missing:
        cannot_run(f"two nodes need {', '.join(missing)} (Debian: util-linux, iproute2; root)")
    library = work / "late.so"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE", "-U_FORTIFY_SOURCE", "-o", str(library)]
    subprocess.run([compiler(), *flags, str(Path(__file__).parent / "late.cpp"), "-ldl"], check=True)
    (work / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in ADDRESSES.items()))
    (work / "launcher").write_text(LAUNCHER.format(work=work))
    (work / "launcher").chmod(0o755)
    kept = " ".join(shlex.quote(str(path)) for path in (work, shared, ROOT, Path(sys.prefix)))
    started = []
    try:
        for name in NAMES:
            (work / name).mkdir()
            script = SET_UP.format(name=name, work=work, kept=kept)
            command = ["unshare", *FLAGS, "sh", "-c", script]
            node = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            started.append(node)
            (work / f"{name}.pid").write_text(str(node.pid))
            assert node.stdout.readline() == "up\n"
        _connect(work)
        yield Nodes(work, shared, library)
    finally:
        for node in started:
            for pid in processes_of(node.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.wait(timeout=WAIT)


FLAGS = ("--mount", "--uts", "--ipc", "--net")


def processes_of(node: int) -> list[int]:
    """Those with the mounts of a node's first process, that one as well."""
    mounts = mounts_of(node)
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mounts and mounts_of(pid) == mounts]


def mounts_of(pid: int) -> str:
    """Empty if the process has ended."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt")
    return ""


def _connect(work: Path) -> None:
    """A cable from node to node."""
    first, second = ((work / f"{name}.pid").read_text() for name in NAMES)

    def ip(pid: str, *arguments: str) -> str:
        command = ["nsenter", "-t", pid, "-n", "ip", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    ip(first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second)
    for name, pid in (("n1", first), ("n2", second)):
        ip(pid, "address", "add", f"{ADDRESSES[name]}/24", "dev", "eth0")
        ip(pid, "link", "set", "eth0", "up")
    wait_for(lambda: all("state UP" in ip(pid, "link", "show", "eth0") for pid in (first, second)))
