"""A private Slurm on this machine: Debian's slurm-wlm and munge, two nodes, started as root without systemd."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from environments import cannot_run

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
KillWait=5
MinJobAge=300
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
            command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Of a job (its newest start), such as COMPLETED."""
        return re.search(r"JobState=(\w+)", self.run("scontrol", "show", "job", job))[1]

    def wait_all(self, seconds: float) -> None:
        """Until nothing is queued or running."""
        end = time.time() + seconds
        while self.run("squeue", "-h"):
            assert time.time() < end, self.run("squeue")
            time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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
    ports = {"port": _free_port(), "port1": _free_port(), "port2": _free_port()}
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
        end = time.time() + 30
        while "idle" not in (subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
        ).stdout):  # fmt: skip
            assert time.time() < end, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)
        yield Slurm(environment)
    finally:
        subprocess.run(["scancel", "--state=RUNNING"], env=environment, capture_output=True, check=False)
        for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "munged"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
