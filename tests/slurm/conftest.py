"""A private Slurm on this machine: Debian's slurm-wlm and munge, two nodes, started as root without systemd."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from environments import cannot_run
from held_fits import WAIT, wait_for

ROOT = Path(__file__).parents[2]
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=pmi2
KillWait=2
MinJobAge=300
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=4 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=4 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""
# Two devices of each node that are none: they exist everywhere, and Slurm allocates and numbers them.
GRES = "NodeName=n[1-2] Name=gpu File=/dev/null\nNodeName=n[1-2] Name=gpu File=/dev/zero\n"


class Slurm:
    """Submits and watches jobs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=WAIT, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Of a job (its newest start), such as COMPLETED."""
        return re.search(r"JobState=(\w+)", self.run("scontrol", "show", "job", job))[1]

    def wait_all(self) -> None:
        """Until nothing is queued or running."""
        wait_for(lambda: not self.run("squeue", "-h"), lambda: self.run("squeue"))


def _free_ports(n: int) -> list[int]:
    """Below the range from which the kernel serves programs that ask for any port."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in random.sample(range(20000, 32000), 1000):
            taken = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                taken.bind(("", port))
                ports.append(port)
            if len(ports) == n:
                return ports
    raise AssertionError("no free ports")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if not missing and os.getuid() != 0:
        missing = ["the rights of root"]
    if missing:
        cannot_run(f"a private Slurm needs {', '.join(missing)} (Debian: slurm-wlm, munge)")
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    ports = dict(zip(("port", "port1", "port2"), _free_ports(3), strict=True))
    conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, **ports))
    (folder / "gres.conf").write_text(GRES)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PMI", "OMPI"))}
    environment = {**kept, "SLURM_CONF": str(conf), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(os.sys.executable).parent}:{kept['PATH']}"
    munge = [f"--socket={folder}/munge.socket", f"--key-file={key}", f"--pid-file={folder}/munged.pid"]
    munge += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed", "--force", "--num-threads=2"]
    subprocess.run(["munged", *munge], check=True, env=environment, capture_output=True)
    try:
        subprocess.run(["slurmctld", "-f", str(conf)], check=True, env=environment, capture_output=True)
        for node in ("n1", "n2"):
            subprocess.run(["slurmd", "-N", node, "-f", str(conf)], check=True, env=environment, capture_output=True)
        sinfo = ["sinfo", "-h", "-o", "%T"]
        wait_for(
            lambda: b"idle" in subprocess.run(sinfo, env=environment, capture_output=True, check=False).stdout,
            lambda: (folder / "slurmctld.log").read_text()[-2000:],
        )
        yield Slurm(environment)
    finally:
        subprocess.run(["scancel", "--state=RUNNING"], env=environment, capture_output=True, check=False)
        for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "munged"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
