"""A run on a real Slurm of this machine: two tasks, queued again in the middle of a step, end with the local digest.

munged, slurmctld and slurmd are started in a temporary folder, on the loopback interface, as this user. The job is
examples/clusters/slurm.sh. Debian: apt-get install slurmctld slurmd slurm-client munge
"""

from __future__ import annotations

import getpass
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from short_run import ARGUMENTS, ENVIRONMENT, ROOT, compare, free_ports, local_digest, rows, wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "srun")
CONFIG = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=3
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def main() -> int:
    """Returns 0 for equal digests, 2 where Slurm is not installed."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        lacking = ", ".join(missing)
        print(f"on_slurm: Slurm is not installed (no {lacking}): apt-get install slurmctld slurmd slurm-client munge")
        return 2
    with TemporaryDirectory(prefix="on-slurm-") as name, ExitStack() as stack:
        folder, run = Path(name), Path(name) / "run"
        folder.chmod(0o755)
        environment = os.environ | ENVIRONMENT | {"SLURM_CONF": str(folder / "slurm.conf")}
        environment["PATH"] = os.pathsep.join([str(_command(folder)), environment["PATH"], path])
        try:
            _start(folder, environment, stack)
            return _check(folder, run, environment)
        except (TimeoutError, subprocess.CalledProcessError) as error:
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}")
            print(f"on_slurm: {error}")
            return 1


def _command(folder: Path) -> Path:
    """A directory with the command `noiseless`, of the Python that executes this script."""
    place = folder / "bin"
    place.mkdir()
    (place / "noiseless").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m noiseless "$@"\n')
    (place / "noiseless").chmod(0o755)
    return place


def _start(folder: Path, environment: dict[str, str], stack: ExitStack) -> None:
    """Starts the daemons; leaving the stack ends them, the last one first."""
    for part in ("state", "spool"):
        (folder / part).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    controller_port, node_port = free_ports(2)
    values = {"host": socket.gethostname().partition(".")[0], "user": getpass.getuser(), "folder": folder}
    values |= {"controller_port": controller_port, "node_port": node_port}
    (folder / "slurm.conf").write_text(CONFIG.format(**values))
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    files |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
    munged = ["munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())]
    for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
        log = stack.enter_context((folder / f"{command[0]}.log").open("w"))
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        stack.callback(_end, process)
        if command is munged:
            wait_for("munged has its socket", files["socket"].exists, 60)
    wait_for("the node is idle", lambda: "idle" in _output(environment, "sinfo", "--noheader", "--format=%T"), 120)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a daemon that this script has started."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _check(folder: Path, run: Path, environment: dict[str, str]) -> int:
    """Runs the job, queues it again in the middle of a step, and compares the digests."""
    expected = local_digest(folder)
    script = str(ROOT / "examples" / "clusters" / "slurm.sh")
    options = ["--parsable", f"--output={folder / 'job.log'}", f"--chdir={folder}", "--oversubscribe"]
    job = _output(environment, "sbatch", *options, script, *ARGUMENTS, "--run-dir", str(run)).strip()
    times, within = 0, False
    while not within and times < 5:
        first = rows(run) + 1
        wait_for("a step is done", lambda first=first: rows(run) >= first or _ended(environment, job))
        wait_for("the next one has begun", lambda: _snapshots(run) or _ended(environment, job))
        if _ended(environment, job):
            break
        _output(environment, "scontrol", "requeue", job)
        times += 1
        wait_for("the job waits again", lambda: _state(environment, job) == "PENDING")
        within = _snapshots(run)  # of the step in which the tasks stopped
        stopped_at = rows(run)
        wait_for("the job runs again", lambda: _state(environment, job) != "PENDING")
    wait_for("the job has ended", lambda: _ended(environment, job))
    print((folder / "job.log").read_text())
    if not within:
        print("on_slurm: the job was never stopped in the middle of a step")
        return 1
    detail = f"two tasks, {times} scontrol requeue, the last one in the middle of step {stopped_at}"
    return compare("Slurm", run, expected, detail)


def _snapshots(run: Path) -> bool:
    """Whether the run has snapshots of a step that is not done."""
    return any((run / "snapshots").glob("*.partial"))


def _ended(environment: dict[str, str], job: str) -> bool:
    """Whether the job has ended."""
    return _state(environment, job) in ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL")


def _state(environment: dict[str, str], job: str) -> str:
    """The state of the job, such as PENDING."""
    shown = _output(environment, "scontrol", "show", "job", job)
    return shown.partition("JobState=")[2].split()[0]


def _output(environment: dict[str, str], *command: str) -> str:
    """The output of a program; raises if it fails."""
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
