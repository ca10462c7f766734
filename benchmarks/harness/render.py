"""docs/benchmarks.md from the results: a chapter for each that exists, with the circumstances it was measured in."""

import importlib
import json
from pathlib import Path
from typing import Any

from benchmarks.harness.tables import circumstances

NAMES = {"training": "Training throughput and memory", "sampling": "Drawing pictures",
         "quality": "Quality for the time spent", "feeding": "Feeding pictures", "startup": "Start-up",
         "exporting": "Exporting", "growth": "How costs grow", "gpu": "On a GPU"}
INTRODUCTION = """# Benchmarks

Written by the command that measured; nothing here was typed by hand.

    python -m benchmarks.run            # all of it, hours
    python -m benchmarks.run --quick    # all of it, briefly
    python -m benchmarks.run gpu        # where there is one
    python -m benchmarks.run render     # this page, from benchmarks/results/*.json

Each side runs in a process and an environment of its own, with one thread on the same core; they take turns, one
working while the others wait. A ratio compares two sides within one turn; shown are medians, and the lowest and the
highest. Every repetition is in the JSON. Peers are diffusers with the loops of its training examples re-stated,
denoising-diffusion-pytorch and k-diffusion, as PyPI has them; improved-diffusion is not there, and not compared.
"""


def page(results: Path, docs: Path) -> str:
    """The whole page; plots go to docs/pictures."""
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
