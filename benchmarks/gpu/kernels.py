"""Three training steps in torch's profiler: kernels, the time between them, copies, changes of memory order."""

import collections
import functools
import re
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.contenders import finish
from benchmarks.gpu import Settings, Units
from benchmarks.gpu.throughput import as_in_training, make_trainer

SLOWEST = 25                                    # kernels that are named
COPIES = re.compile("memcpy", re.IGNORECASE)
REORDERS = re.compile("nchwToNhwc|nhwcToNchw|transpose|contiguous", re.IGNORECASE)


def units(settings: Settings) -> Units:
    cases = (("nano", 16, 4),) if settings.tiny else (("small", 64, 256), ("nano", 32, 32))
    return [(f"{preset}, {resolution} px, batches of {batch}",
             functools.partial(measure, settings, preset, resolution, batch)) for preset, resolution, batch in cases]


@as_in_training
def measure(settings: Settings, preset: str, resolution: int, batch: int) -> dict[str, Any]:
    trainer = make_trainer(settings, preset, resolution, batch)
    cuda, steps = settings.device == "cuda", 1 if settings.tiny else 3
    for _ in range(2):
        trainer.step()
    finish(settings.device)
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            trainer.step()
        finish(settings.device)
    trainer.batches.close()
    wanted = "CUDA" if cuda else "CPU"
    spans = [(event.name, event.time_range.start, event.time_range.end) for event in profiler.events()
             if event.device_type.name == wanted]
    return {"steps": steps, **summarise(spans)}


def summarise(spans: list[tuple[str, float, float]]) -> dict[str, Any]:
    """spans: (name, begin, end) of every kernel, in microseconds."""
    seconds, counts = collections.defaultdict[str, float](float), collections.Counter[str]()
    busy, until = 0.0, -float("inf")
    for name, begin, end in sorted(spans, key=lambda span: span[1]):
        seconds[name] += (end - begin) / 1e6
        counts[name] += 1
        busy, until = busy + max(0.0, end - max(begin, until)), max(until, end)
    whole = max((end for _, _, end in spans), default=0.0) - min((begin for _, begin, _ in spans), default=0.0)

    def matching(pattern: re.Pattern[str]) -> dict[str, Any]:
        names = [name for name in counts if pattern.search(name)]
        return {"count": sum(counts[name] for name in names), "ms": 1e3 * sum(seconds[name] for name in names)}

    return {"kernels": len(spans), "ms": whole / 1e3, "idle share": 1 - busy / whole if whole else None,
            "copies": matching(COPIES), "changes of order": matching(REORDERS),
            "slowest": [{"name": name[:120], "count": counts[name], "ms": round(1e3 * spent, 3)}
                        for name, spent in sorted(seconds.items(), key=lambda item: item[1], reverse=True)[:SLOWEST]]}


