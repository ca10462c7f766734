"""docs/benchmarks.md from the results: a chapter for each measurement, with the circumstances it was made in.

The text of a chapter is the docstring of its module in benchmarks/measurements.
"""

import importlib
import json
from pathlib import Path
from typing import Any

from benchmarks.harness.tables import circumstances

NAMES = {"training": "Training throughput and memory", "sampling": "Sampling",
         "quality": "Quality for the time spent", "feeding": "Feeding pictures", "startup": "Start-up",
         "exporting": "Exporting", "growth": "How costs grow"}
INTRODUCTION = """# Benchmarks

The commands below write this page from their measurements; nothing here was typed by hand.

    python -m benchmarks.run            # everything, hours
    python -m benchmarks.run --quick    # the same, briefly
    python -m benchmarks.run render     # this page, from benchmarks/results/*.json

Each contender runs in a process and an environment of its own, with one thread, all on the same core. They take turns:
one works while the others wait. A ratio compares two contenders within one turn. The tables show medians with the
lowest and the highest value, and every repetition is in the JSON. The peers are diffusers, with the loops of its
training examples restated, denoising-diffusion-pytorch and k-diffusion, each in the version that PyPI has;
improved-diffusion is not on PyPI and is not compared.

All of this was measured on CPUs. `gpu_acceptance.py` measures speed, parity and memory on a GPU by one command; it has
run on CPUs only, as a rehearsal.
"""


def page(results: Path, docs: Path) -> str:
    """The text of the page, from the reports in `results`. Plots are written to the folder `pictures` of `docs`."""
    parts = [INTRODUCTION]
    for name, title in NAMES.items():
        path = results / f"{name}.json"
        if not path.exists():
            continue
        report: dict[str, Any] = json.loads(path.read_text())
        module = importlib.import_module(f"benchmarks.measurements.{name}")
        explanation = (module.__doc__ or "").strip()
        parts.append("\n".join([f"## {title}\n", explanation, "", *module.render(report)]))
        if hasattr(module, "plot"):
            module.plot(report, docs / "pictures" / f"{name}.png")
            parts.append(f"![{title}](pictures/{name}.png)")
        parts.append(f"{circumstances(report)}{' A quick run.' if report['quick'] else ''}\n")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def write_page(results: Path, docs: Path) -> None:
    (docs / "benchmarks.md").write_text(page(results, docs), encoding="utf-8")
