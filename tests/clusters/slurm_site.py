"""A real SLURM on this machine alone: a controller and several nodes, with ports and keys of their own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
NODES = 2
CPUS = 4
MEMORY = 8000  # MB of a node, which nothing enforces
GPUS = ("/dev/null", "/dev/zero")  # what the last node takes for some

_CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket,cred_expire=20
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=2
MpiDefault=none
GresTypes=gpu
"""


def missing():
    """Programs that this machine lacks, or what else keeps SLURM from running here."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return absent or ([] if os.getuid() == 0 else ["root's rights"])


class Site:
    """A running SLURM; `environment` makes its commands find it."""

    def __init__(self, home: Path):
        self.home = home
        self.environment = {"SLURM_CONF": str(home / "slurm.conf")}

    def start(self):
        host = socket.gethostname().partition(".")[0]
        ports = _free_ports(1 + NODES)
        lines = [_CONFIG.format(host=host, home=self.home, controller=ports[0])]
        lines += [
            f"NodeName=n{at} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory={MEMORY}"
            + f" Gres=gpu:{len(GPUS)}" * (at == NODES - 1)
            for at, port in enumerate(ports[1:])
        ]
        lines.append(f"PartitionName=main Nodes=n[0-{NODES - 1}] Default=YES MaxTime=INFINITE")
        (self.home / "slurm.conf").write_text("\n".join(lines) + "\n")
        devices = (f"NodeName=n{NODES - 1} Name=gpu File={device}\n" for device in GPUS)
        (self.home / "gres.conf").write_text("".join(devices))
        (self.home / "state").mkdir()
        key = self.home / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = {"key-file": key, "socket": self.home / "munge.socket", "pid-file": self.home / "munged.pid"}
        files |= {"log-file": self.home / "munged.log", "seed-file": self.home / "munge.seed"}
        self._daemon("munged", "--force", *(f"--{name}={path}" for name, path in files.items()))
        self._daemon("slurmctld", "-c", "-f", self.environment["SLURM_CONF"])
        for at in range(NODES):
            self._daemon("slurmd", "-N", f"n{at}", "-f", self.environment["SLURM_CONF"])
        self.until(lambda: self.say("sinfo", "-h", "-o", "%t %D").split() == ["idle", str(NODES)])

    def stop(self):
        subprocess.run(["scancel", "--user=root"], env=self._env, check=False)
        self.until(lambda: not self.jobs(), 30)
        for pid in (*self.home.glob("slurmd-*.pid"), self.home / "slurmctld.pid", self.home / "munged.pid"):
            os.kill(int(pid.read_text()), signal.SIGTERM)

    def say(self, *command):
        """Output of one of SLURM's commands."""
        return subprocess.run(command, env=self._env, capture_output=True, text=True, check=False, timeout=60).stdout

    def jobs(self, *states):
        """Ids of the jobs in the queue, of these states, oldest first."""
        chosen = [f"--states={','.join(states)}"] if states else []
        return sorted(map(int, self.say("squeue", "-h", "-o", "%i", *chosen).split()))

    def until(self, condition, seconds=60.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.say("squeue") + self.say("sinfo")
            time.sleep(0.1)

    @property
    def _env(self):
        return {**os.environ, **self.environment}

    def _daemon(self, *command):
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
