"""Which of how many processes this is, read from the environment. Standard library only: asked before torch is there.

Whoever starts several processes says so in environment variables: torchrun, accelerate and `diffuse --gpus N` in the
same ones, srun in its own.
"""

import os
import subprocess
import threading
import time
from dataclasses import dataclass

from ..errors import UsageError

PARENT = "DIFFUSE_PARENT"                       # the process that started this one and will tell how it ended
RENDEZVOUS = "DIFFUSE_RENDEZVOUS"               # a file through which processes of one machine find each other


@dataclass(frozen=True)
class ProcessRank:
    """One process among `size`; `local_rank` counts those of its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes, and talks."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The part of `count` things that is this process's; all parts are equal, or differ by one."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)


SINGLE_PROCESS = ProcessRank()


def place() -> ProcessRank:
    """This process's place. Raises UsageError for an environment that contradicts itself."""
    for rank, size, local in (("RANK", "WORLD_SIZE", "LOCAL_RANK"),
                              ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")):
        if rank in os.environ and size in os.environ:
            try:
                found = ProcessRank(int(os.environ[rank]), int(os.environ[size]), int(os.environ.get(local, "0")))
            except ValueError:
                found = ProcessRank(-1, 0)
            if not 0 <= found.rank < found.size:
                raise UsageError(f"{rank}={os.environ[rank]} and {size}={os.environ[size]} name no process",
                                 hint=f"Unset {rank}, or start with torchrun, srun or --gpus")
            return found
    return SINGLE_PROCESS


def is_launched() -> bool:
    """Whether `diffuse` itself started this process, and will say how it ended."""
    return PARENT in os.environ


def leave_with_parent() -> None:
    """End this process within a second of the one that launched it, however that ended: no orphan keeps a GPU."""
    parent = int(os.environ[PARENT])

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(9)

    threading.Thread(target=watch, daemon=True).start()


def address_of_slurm() -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT for the processes of one srun: its first machine, a port made from the job's number.

    Raises UsageError when `scontrol` cannot name the machine.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "")
    try:
        names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        first = names.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UsageError(f"cannot tell which machine is the first of {nodes!r}",
                         hint="Set MASTER_ADDR and MASTER_PORT for srun") from error
    return {"MASTER_ADDR": first, "MASTER_PORT": str(20_000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20_000)}
