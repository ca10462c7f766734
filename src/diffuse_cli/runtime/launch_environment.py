"""The rank of this process among the processes of one command, read from the environment.

A program that starts several processes tells each of them its rank in environment variables: torchrun, accelerate and
`diffuse --gpus N` in the same ones, srun in its own. Standard library only, because ranks are needed before torch is
imported.
"""

import os
import subprocess
import threading
import time
from dataclasses import dataclass

from ..errors import UsageError

PARENT = "DIFFUSE_PARENT"           # variable with the id of the process that started this one and reports how it ended
MAX_PROCESSES = 1_000_000
RENDEZVOUS = "DIFFUSE_RENDEZVOUS"   # variable with the file through which the processes of one machine find each other


@dataclass(frozen=True)
class ProcessRank:
    """A process's rank among all processes of one command."""

    rank: int = 0                               # 0 … world_size - 1
    world_size: int = 1                         # number of processes
    local_rank: int = 0                         # rank among the processes of the same machine

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and reports to the user."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The part of 0 … count - 1 that belongs to this process. The parts of all processes differ by one at most."""
        return range(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)


SINGLE_PROCESS = ProcessRank()


def process_rank() -> ProcessRank:
    """This process's rank, from the environment. Raises UsageError if the variables contradict each other."""
    for rank, size, local_rank in (("RANK", "WORLD_SIZE", "LOCAL_RANK"),
                                   ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")):
        if rank in os.environ and size in os.environ:
            try:
                process = ProcessRank(
                    int(os.environ[rank]), int(os.environ[size]), int(os.environ.get(local_rank, "0")))
            except ValueError:
                process = ProcessRank(-1, 0)
            if not 0 <= process.rank < process.world_size <= MAX_PROCESSES:
                raise UsageError(f"{rank}={os.environ[rank]} and {size}={os.environ[size]} name no process",
                                 hint=f"Unset {rank}, or start with torchrun, srun or --gpus")
            return process
    return SINGLE_PROCESS


def is_launched() -> bool:
    """Whether `diffuse` itself started this process. Its parent then reports how it ended."""
    return PARENT in os.environ


def exit_with_parent() -> None:
    """End this process within a second of the one that launched it, in whatever way that ended.

    Otherwise an orphan would keep a GPU.
    """
    parent = int(os.environ[PARENT])

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(9)

    threading.Thread(target=watch, daemon=True).start()


def slurm_address() -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT for the processes of one srun: its first machine, and a port from the job's number.

    Raises UsageError if `scontrol` cannot name the machine.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "")
    try:
        hostnames = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        first = hostnames.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UsageError(f"cannot tell which machine is the first of {nodes!r}",
                         hint="Set MASTER_ADDR and MASTER_PORT for srun") from error
    job = os.environ.get("SLURM_JOB_ID", "")
    return {"MASTER_ADDR": first, "MASTER_PORT": str(20_000 + int(job[-4:] if job.isdecimal() else "0"))}
