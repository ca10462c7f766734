"""The device a program computes on: which one, how precisely, how many pictures at once."""

import os
import sys
from pathlib import Path

import torch

from ..config import Machine
from ..errors import UsageError
from . import launch_environment

if sys.platform != "win32":
    import resource

DEVICES = ("cpu", "cuda", "mps")                # of torch's, those that trainings are written for


def count_processes(machine: Machine) -> int:
    """How many processes should train together: one for each GPU asked for. Raises UsageError, naming what there is."""
    if machine.gpus in (None, "0"):
        return machine.procs or 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = gpus if machine.gpus == "all" else int(machine.gpus or 0)
    if gpus == 0 or wanted > gpus:
        seen = "no GPU is visible" if gpus == 0 else f"only {gpus} visible"
        raise UsageError(f"--gpus {machine.gpus} was asked for, but {seen} to torch {torch.__version__}",
                         hint=f"Leave --gpus out to use {'the CPU' if gpus == 0 else 'one'}, or choose --gpus 0")
    return wanted


def choose_device(machine: Machine) -> torch.device:
    """The device asked for, else a GPU, else the CPU. Raises UsageError, naming what there is."""
    if machine.gpus is not None and machine.gpus != "0":
        count_processes(machine)
    elif machine.gpus == "0" or machine.procs:
        return torch.device("cpu")
    elif machine.device is not None and (device := _checked_device(machine.device)) != torch.device("cuda"):
        return device
    if torch.cuda.is_available():
        local_rank, gpus = launch_environment.place().local_rank, torch.cuda.device_count()
        if local_rank >= gpus:
            raise UsageError(f"process {local_rank + 1} of this machine has no GPU: {gpus} visible",
                             hint="Start as many processes as there are GPUs")
        return torch.device("cuda", local_rank)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _checked_device(name: str) -> torch.device:
    """The device of that name. Raises UsageError unless it can be used here, naming those that can."""
    cause: Exception | None = None
    if name.partition(":")[0] in DEVICES:
        try:
            device = torch.device(name)
            torch.zeros(1, device=device)
            return device
        except (RuntimeError, AssertionError) as error:
            cause = error
    usable = ["cpu", *(["cuda"] if torch.cuda.is_available() else []),
              *(["mps"] if torch.backends.mps.is_available() else [])]
    raise UsageError(f"--device {name[:40]!r} cannot be used here by torch {torch.__version__}",
                     hint=f"Choose {' or '.join(usable)}, or leave it out") from cause


def choose_precision(machine: Machine, device: torch.device) -> str:
    """bf16 where the device computes with it faster than with float32, unless chosen."""
    if machine.precision != "auto":
        return machine.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_is_faster_with_bf16() else "fp32"


def _cpu_is_faster_with_bf16() -> bool:
    """Only with matrix units (AMX), or on AMD: an Intel CPU that has just AVX-512 BF16 was measured to be slower."""
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in facts or ("avx512_bf16" in facts and "AuthenticAMD" in facts)


def choose_micro_batch(machine: Machine, device: torch.device, *, batch_size: int, resolution: int) -> int:
    """Pictures at once: as asked, else 64 at 64 px on a CPU or MPS, 512 on a GPU, in proportion to the pixels."""
    if machine.micro_batch is not None:
        return min(machine.micro_batch, batch_size)
    at_64 = 512 if device.type == "cuda" else 64
    return max(1, min(batch_size, int(at_64 * (64 / resolution) ** 2)))


def describe_device(device: torch.device) -> str:
    """For people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} of {os.cpu_count()} cores" if device.type == "cpu" else device.type.upper()


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
