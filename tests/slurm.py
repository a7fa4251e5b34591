"""A real Slurm of one node, with its own ports and folders, for the tests of the job script."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CONFIGURATION = """\
ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Its commands, and what it says of a job."""

    def __init__(self, configuration: Path) -> None:
        self.environment = {**os.environ, "SLURM_CONF": str(configuration)}

    def ask(self, *command: str) -> str:
        """Return what a command prints, if it answers yet."""
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False).stdout

    def run(self, *command: str, **variables: str) -> str:
        """Return what a command prints; it must do its work."""
        done = subprocess.run(command, capture_output=True, text=True, env={**self.environment, **variables}, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def state(self, job: str) -> str:
        """Return a job's state, such as ``RUNNING``."""
        found = re.search(r"JobState=(\w+)", self.run("scontrol", "show", "job", job))
        assert found, "scontrol tells the state of each job"
        return found[1]

    def wait(self, condition: Callable[[], bool], timeout_s: float, log: Path) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, log.read_text()[-3000:] if log.is_file() else "the job wrote no log"
            time.sleep(0.2)


@contextlib.contextmanager
def slurm_of_one_node(folder: Path) -> Iterator[Slurm]:
    """Give a Slurm that runs on this machine until the block ends."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        controller, daemon = one.getsockname()[1], other.getsockname()[1]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    host, path = socket.gethostname().split(".")[0], folder / "slurm.conf"
    path.write_text(
        CONFIGURATION.format(host=host, user=user, controller=controller, daemon=daemon, folder=folder, cores=len(os.sched_getaffinity(0)))
    )
    slurm, daemons = Slurm(path), []
    try:
        for program in ("slurmctld", "slurmd"):
            daemons.append(subprocess.Popen([program, "-D"], env=slurm.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        slurm.wait(
            lambda: "idle" in subprocess.run(["sinfo", "-h"], capture_output=True, text=True, env=slurm.environment).stdout, 30, path
        )
        yield slurm
    finally:
        for process in reversed(daemons):
            process.terminate()
            process.wait(20)
