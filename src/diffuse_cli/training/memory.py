"""The memory of a GPU that a training takes, from counts of parameters and activations, and how many pictures fit."""

import math

import torch

from ..config import Machine, Plan
from ..errors import UsageError
from ..network.network import activation_bytes, parameter_count
from ..runtime import devices, sharding

SHARE = 0.9                                     # of a GPU's memory that is planned for
CONTEXT = 2**30                                 # bytes: CUDA itself, and what convolutions and products work in
FOR_EACH_PARAMETER = 30                         # bytes: weight, gradient and average, 4 each; moments, 8 at most; steps
#                                                 of Muon, which are made all at once, 8; a copy in bf16, 2
GATHERED = 8                                    # bytes, if weights are divided: those of the parts that compute, and
#                                                 their gradients; the whole average, while the main process needs it
FEW_PICTURES = 8                                # at once; with fewer, a GPU has too little to do
OF_A_TEACHER = 4                                # bytes, for each of its parameters
OF_A_DISCRIMINATOR = 1.7                        # times the activations of a training without one: what the teacher sees
#                                                 in estimates, and what is made of it; less in larger presets
ALLOWANCE = 1.5                                 # bytes for each one that is kept for the backward pass: gradients of
#                                                 activations, and memory in pieces that nothing fits into


def choose_sharding(plan: Plan, machine: Machine, device: torch.device, *, processes: int) -> bool:
    """Whether each process keeps its share of the weights alone: if --shard says so, or if a GPU has no room for all.

    "Room" means that a few pictures fit beside them. One process has nobody to share with. Raises UsageError for the
    student of a teacher, whose passes differ from process to process, and where this torch cannot divide weights.
    """
    if machine.shard and plan.model.student is not None:
        raise UsageError("the weights of a student cannot be divided among processes", hint="Leave --shard out")
    if machine.shard and processes > 1 and not sharding.is_possible(device):
        raise UsageError(f"torch {torch.__version__} cannot divide weights among processes on a CPU",
                         hint="Install a newer torch, or leave --shard out")
    if processes == 1 or machine.shard or plan.model.student is not None or device.type != "cuda":
        return machine.shard and processes > 1
    return planned_bytes(plan, _few(plan, processes)) > SHARE * devices.total_memory(device)


def choose_recompute(
    plan: Plan, machine: Machine, device: torch.device, *, processes: int, sharded: bool = False,
) -> bool:
    """Whether blocks compute once more in the backward pass, because otherwise a GPU has no room for a few pictures.

    With --micro-batch, it must have room for as many. Nothing is gained on other devices, whose memory other programs
    share.
    """
    if device.type != "cuda":
        return False
    wanted = machine.micro_batch or _few(plan, processes)
    return planned_bytes(plan, wanted, shares=processes if sharded else 1) > SHARE * devices.total_memory(device)


def _few(plan: Plan, processes: int) -> int:
    return min(FEW_PICTURES, math.ceil(plan.batch_size / processes))


def choose_micro_batch(
    plan: Plan, machine: Machine, device: torch.device, *, processes: int, sharded: bool = False,
    recompute: bool = False,
) -> int:
    """The number of pictures at once: as --micro-batch says, otherwise on a GPU as many as fit into its memory.

    They are as equal shares of a process's part of the batch as possible. Only the size of the memory counts, not what
    is free, so that the same machine always chooses the same. Elsewhere as `devices.choose_micro_batch`.
    """
    if machine.micro_batch is not None or device.type != "cuda":
        return devices.choose_micro_batch(
            machine, device, batch_size=plan.batch_size, resolution=plan.model.network.resolution.side)
    room = SHARE * devices.total_memory(device) - planned_bytes(plan, 0, shares=processes if sharded else 1)
    fitting = max(1, int(room / _of_a_picture(plan, recompute=recompute)))
    part = math.ceil(plan.batch_size / processes)
    return math.ceil(part / math.ceil(part / fitting))


def fits(plan: Plan, device: torch.device) -> bool:
    """Whether one process can train a plan with a single picture at once, as far as is planned."""
    return planned_bytes(plan, 1, recompute=device.type == "cuda") <= SHARE * devices.total_memory(device)


def planned_bytes(plan: Plan, micro_batch: int, *, shares: int = 1, recompute: bool = False) -> int:
    """The memory that a training with so many pictures at once should take of a GPU.

    shares: the number of processes among which weights, gradients, average and moments are divided. recompute: see
    `choose_recompute`.
    """
    network = plan.model.network
    each = FOR_EACH_PARAMETER / shares + (GATHERED if shares > 1 else 0)
    each += OF_A_TEACHER if plan.model.student is not None else 0
    pictures = micro_batch * _of_a_picture(plan, recompute=recompute) if micro_batch else 0
    return int(CONTEXT + each * parameter_count(network) + pictures)


def _of_a_picture(plan: Plan, *, recompute: bool) -> float:
    """The bytes that each further picture at once takes."""
    activations = activation_bytes(plan.model.network, recompute=recompute)
    return ALLOWANCE * activations * (OF_A_DISCRIMINATOR if plan.adversarial else 1)
