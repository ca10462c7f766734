"""The machine: versions, the device, and the rates that every other figure is compared with."""

import os
import platform
from typing import Any

import torch

from benchmarks.gpu import Settings, Units, per_call
from benchmarks.harness.worker import versions


def units(settings: Settings) -> Units:
    return [("machine", lambda: machine(settings.device)),
            ("matrix products", lambda: matrix_rates(settings)),
            ("memory and launches", lambda: bandwidth(settings))]


def machine(device: str) -> dict[str, Any]:
    facts = {"python": platform.python_version(), "cores": os.cpu_count(), "versions": versions(),
             "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "device": "CPU"}
    if device == "cuda":
        of = torch.cuda.get_device_properties(0)
        facts |= {"device": of.name, "capability": f"{of.major}.{of.minor}", "memory": of.total_memory,
                  "processors": of.multi_processor_count, "free": torch.cuda.mem_get_info()[0],
                  "bf16": torch.cuda.is_bf16_supported(including_emulation=False)}
    return facts


def matrix_rate(settings: Settings, dtype: torch.dtype = torch.bfloat16, seconds: float = 1.0) -> float:
    """FLOP/s of a large matrix product."""
    size = 256 if settings.tiny else 8192
    left, right = (torch.randn(size, size, device=settings.device).to(dtype) for _ in range(2))
    return 2 * size**3 / per_call(lambda: left @ right, settings.device, seconds=settings.seconds(seconds))


def matrix_rates(settings: Settings) -> dict[str, Any]:
    rates = {"bf16": matrix_rate(settings), "fp16": matrix_rate(settings, torch.float16)}
    before = torch.get_float32_matmul_precision()
    for name, precision in (("fp32", "highest"), ("tf32", "high")):
        torch.set_float32_matmul_precision(precision)
        rates[name] = matrix_rate(settings, torch.float32)
    torch.set_float32_matmul_precision(before)
    return {f"{name}, TFLOP/s": rate / 1e12 for name, rate in rates.items()}


def bandwidth(settings: Settings) -> dict[str, Any]:
    """Of a copy within the device (read and written bytes), of one to it, and the time of a kernel that does nothing.
    """
    device, count = settings.device, 2**16 if settings.tiny else 2**28
    source, target = (torch.zeros(count, dtype=torch.uint8, device=device) for _ in range(2))
    host = torch.zeros(count // 4, dtype=torch.uint8, pin_memory=device == "cuda")
    small = torch.zeros(1, device=device)
    seconds = settings.seconds(0.5)
    inside = per_call(lambda: target.copy_(source), device, seconds=seconds)
    to_device = per_call(lambda: target[: len(host)].copy_(host, non_blocking=True), device, seconds=seconds)
    return {"copy inside, GB/s": 2 * count / inside / 1e9, "copy to the device, GB/s": len(host) / to_device / 1e9,
            "launch, us": 1e6 * per_call(lambda: small.add_(1), device, seconds=seconds)}
