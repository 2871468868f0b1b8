"""A Slurm of one node on the loopback interface, without systemd, for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sinfo", "sbatch", "squeue")


def missing() -> str:
    """Why there can be no Slurm here; empty where there can."""
    lost = [name for name in PROGRAMS if shutil.which(name) is None]
    if lost:
        return f"no {', '.join(lost)} (Debian: slurm-wlm slurm-client munge)"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started by root only"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def configuration(folder: Path, host: str) -> str:
    """`slurm.conf`: every path in `folder`, every port on 127.0.0.1."""
    lines = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": free_port(),
        "SlurmdPort": free_port(),
        "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge.socket",
        "CredType": "cred/munge",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        "SlurmctldLogFile": folder / "slurmctld.log",
        "SlurmdLogFile": folder / "slurmd.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "MpiDefault": "none",
        "SwitchType": "switch/none",
        "ReturnToService": 2,
        "MinJobAge": 300,
    }
    text = "".join(f"{key}={value}\n" for key, value in lines.items())
    text += f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=4000 State=UNKNOWN\n"
    return text + f"PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP\n"


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The daemons, with all their files in the new `folder`; gives the environment that finds them, and ends them."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    conf.write_text(configuration(folder, host))
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
    munge += [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "log", "seed")]
    commands = (munge, ["slurmctld", "-D", "-f", str(conf)], ["slurmd", "-D", "-f", str(conf)])
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    children = []
    try:
        for number, command in enumerate(commands):
            log = open(folder / f"daemon{number}.out", "w")  # noqa: SIM115
            children.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
            log.close()
            time.sleep(1.5)
        for _ in range(60):
            done = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, env=environment)
            if done.stdout.strip() == "idle":
                break
            time.sleep(0.5)
        else:
            logs = "\n".join(f.read_text() for f in folder.glob("daemon*.out"))
            raise RuntimeError(f"no Slurm node became idle: {done.stdout} {done.stderr}\n{logs}")
        yield environment
    finally:
        for child in reversed(children):
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:  # slurmd waits long for the last words of its jobs
                child.kill()
                child.wait()
