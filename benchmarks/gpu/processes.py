"""Several processes, as far as one GPU goes: NCCL in a world of one, and a command that is told to end."""

import json
import signal
import time
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu import Settings, Units
from benchmarks.gpu.diffuse import run, start
from benchmarks.gpu.scenes import folder
from benchmarks.gpu.throughput import make_trainer


def units(settings: Settings) -> Units:
    return [("a world of one", lambda: world_of_one(settings)), ("SIGTERM", lambda: told_to_end(settings))]


def world_of_one(settings: Settings) -> dict[str, Any]:
    """The gradient of a batch, plain and averaged over a world of one by DistributedDataParallel."""
    cuda = settings.device == "cuda"
    trainer = make_trainer(settings, "nano", *((16, 4) if settings.tiny else (32, 64)))
    begun = time.perf_counter()
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", rank=0, world_size=1,
                            device_id=torch.device("cuda", 0) if cuda else None,
                            init_method=f"file://{settings.out / 'rendezvous'}")
    numbers = torch.ones(2**20, device=settings.device)
    dist.all_reduce(numbers)
    connected = time.perf_counter() - begun
    gradients = []
    for loss in (trainer.loss, DistributedDataParallel(trainer.loss, gradient_as_bucket_view=True)):
        trainer.optimizer.zero_grad()
        losses = loss(*trainer.batches.draw(0, 0, trainer.plan.batch_size))
        torch.autograd.backward(losses[0])
        gradients.append([one.grad.clone() for one in trainer.network.parameters() if one.grad is not None])
    difference = max(float((one - other).abs().max()) for one, other in zip(*gradients, strict=True))
    trainer.batches.close()
    dist.destroy_process_group()
    return {"passed": difference < 1e-6 and float(numbers.sum()) == 2**20, "largest difference": difference,
            "connecting, s": connected}


def told_to_end(settings: Settings) -> dict[str, Any]:
    """SIGTERM after the first report: the state is saved, and the same command resumes."""
    pictures = folder(settings, resolution=32, count=64 if settings.tiny else 512)
    where = ("--gpus", "1") if settings.device == "cuda" else ("--device", "cpu")
    command = ("train", pictures, "--name", "ended", "--init", "none", "--preset", "nano", "--resolution", 16,
               "--batch-size", 4, "--json", *where)
    process, begun = start(*command, "--steps", 10**6), 0.0
    assert process.stdout is not None
    step = 0
    for line in process.stdout:
        event = json.loads(line)
        step = event.get("step", step)
        if event["event"] == "stepped" and not begun:
            begun = time.perf_counter()
            process.send_signal(signal.SIGTERM)
    errors = process.communicate()[1]
    seconds = time.perf_counter() - begun
    resumed, _ = run("models", "show", "ended")
    return {"passed": process.returncode in (143, -signal.SIGTERM) and step > 0, "exit code": process.returncode,
            "step": step, "seconds to end": seconds, "said": errors[-600:], "shown": resumed["exit code"]}
