"""The device to compute on: which one, with which precision, and how many pictures at once."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ..config import DEVICES, Machine
from ..errors import UsageError
from . import launch_environment

if sys.platform != "win32":
    import resource

COMPILED_STEPS = 10_000                         # steps of a run on a GPU from which compiling should pay: an estimate


def count_processes(machine: Machine) -> int:
    """The number of processes that --gpus or --procs asks for: with --gpus, one for each GPU.

    Raises UsageError if there are not so many GPUs; the message names the number that there are.
    """
    if machine.gpus in (None, "0"):
        return machine.procs or 1
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = visible if machine.gpus == "all" else int(machine.gpus or 0)
    if visible == 0 or count > visible:
        reason = "no GPU is visible" if visible == 0 else f"only {visible} visible"
        raise UsageError(f"--gpus {machine.gpus} was asked for, but {reason} to torch {torch.__version__}",
                         hint=f"Leave --gpus out to use {'the CPU' if visible == 0 else 'one'}, or choose --gpus 0")
    return count


def choose_device(machine: Machine) -> torch.device:
    """The device of --gpus, --procs or --device, otherwise a GPU if there is one, otherwise the CPU.

    Each process of a machine takes the GPU of its local rank. Raises UsageError if the device cannot be used.
    """
    if machine.gpus is not None and machine.gpus != "0":
        count_processes(machine)
    elif machine.gpus == "0" or machine.procs:
        return torch.device("cpu")
    elif machine.device is not None and (device := _checked_device(machine.device)) != torch.device("cuda"):
        return device
    if torch.cuda.is_available():
        local_rank, visible = launch_environment.process_rank().local_rank, torch.cuda.device_count()
        if local_rank >= visible:
            raise UsageError(f"process {local_rank + 1} of this machine has no GPU: {visible} visible",
                             hint="Start as many processes as there are GPUs")
        return torch.device("cuda", local_rank)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _checked_device(name: str) -> torch.device:
    """The device of that name. Raises UsageError if it cannot be used here; the hint names the kinds that can."""
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
    """The precision of --precision; for "auto", bf16 if the device computes faster with it than with fp32."""
    if machine.precision != "auto":
        return machine.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_is_faster_with_bf16() else "fp32"


def _cpu_is_faster_with_bf16() -> bool:
    """Whether this CPU has matrix units (AMX), or is an AMD with AVX-512 BF16.

    An Intel CPU with AVX-512 BF16 but without AMX was measured to be slower with bf16.
    """
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in cpuinfo or ("avx512_bf16" in cpuinfo and "AuthenticAMD" in cpuinfo)


def choose_sampling_precision(device: torch.device) -> str:
    """The precision of pictures that nobody asked for: bf16 on a GPU that computes with it, otherwise fp32."""
    return choose_precision(Machine(), device) if device.type == "cuda" else "fp32"


@contextlib.contextmanager
def arithmetic(device: torch.device, *, search: bool = False, deterministic: bool = False) -> Iterator[None]:
    """Choose how torch computes inside; afterwards it is as before. `describe_arithmetic` says it in words.

    On a GPU, float32 is float32: TF32, which torch allows in convolutions by itself, has 11 of its 24 bits. search:
    cuDNN tries its convolutions and takes the fastest, which may be another one in the next run. deterministic: only
    kernels that add in a fixed order, as they always do on a CPU; torch raises where it has none. Enter this before
    anything is computed, because cuBLAS reads its setting when it begins.
    """
    cudnn, cuda = torch.backends.cudnn, device.type == "cuda"
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark      # setting the first imports the compiler
    exact = (torch.get_float32_matmul_precision(), cudnn.allow_tf32) if cuda else None
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    cudnn.benchmark = cuda and search and not deterministic
    if cuda:
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if deterministic:
            torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]
        if exact is not None:
            torch.set_float32_matmul_precision(exact[0])
            cudnn.allow_tf32 = exact[1]


def describe_arithmetic(device: torch.device, *, deterministic: bool) -> str:
    """What a training chooses with `arithmetic`, in words; empty where there is nothing to choose."""
    if device.type != "cuda":
        return ""
    kernels = "only kernels that add in a fixed order" if deterministic else "cuDNN searches for fast convolutions"
    return f"no TF32, {kernels}"


def choose_compile(machine: Machine, device: torch.device, *, steps: int) -> bool | None:
    """Whether torch compiles the network: as --compile says, otherwise None, if it can, in long runs on a GPU.

    steps: of the whole run.
    """
    if machine.compile is not None:
        return machine.compile
    return None if device.type == "cuda" and steps >= COMPILED_STEPS else False


def choose_micro_batch(machine: Machine, device: torch.device, *, batch_size: int, resolution: float) -> int:
    """The number of pictures at once: as --micro-batch says, otherwise the most that fit a fixed number of pixels.

    resolution: √pixels of a picture. At 64×64 pixels these are 512 pictures on a GPU, and 64 on a CPU or MPS. Never
    more than `batch_size`. For a training on a GPU see `training.memory.choose_micro_batch`.
    """
    if machine.micro_batch is not None:
        return min(machine.micro_batch, batch_size)
    at_64 = 512 if device.type == "cuda" else 64
    return max(1, min(batch_size, int(at_64 * (64 / resolution) ** 2)))


def describe_device(device: torch.device) -> str:
    """The name of the device in messages to the user."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} of {os.cpu_count()} cores" if device.type == "cpu" else device.type.upper()


def free_memory(device: torch.device) -> int:
    """The bytes of a GPU that nothing has taken yet. 0 on other devices, which share their memory with the program."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def total_memory(device: torch.device) -> int:
    """The bytes of a GPU, taken or not; of other devices, those of this machine. A huge number on Windows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return sys.maxsize if sys.platform == "win32" else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory(device: torch.device) -> int:
    """The largest memory used so far, in bytes: of the GPU's allocator, otherwise of this process. 0 on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
