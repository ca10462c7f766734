"""Markdown tables from reports, whatever was measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness.figures import format_number, format_spread, ratios

BUSY_LOAD = 1.5                                 # load average (processes at work) above which other work ran beside


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def rates(side: Mapping[str, Any], clock: str = "cpu") -> list[float]:
    """Pictures per second of every repetition, on the clock "cpu" or "wall"."""
    pictures = side["facts"].get("pictures", 1)
    return [pictures * one["count"] / one[clock] for one in side["repetitions"]]


def comparison(report: Mapping[str, Any], *, rate: str, latency: bool = False) -> list[str]:
    """A table for each case: every side's rate, its ratio to the baseline round by round, and its memory.

    latency: columns for the seconds of one unit of sampling, in place of those for training.
    """
    lines: list[str] = []
    for case in report["cases"]:
        sides, base = case["sides"], case["sides"].get(report["baseline"])
        lines += ["", f"**{case['title']}**", "", *table(
            ["", rate, "times the baseline", *_columns(latency), "peak memory, MiB"],
            [[name, format_spread(rates(side)), ratio(side, base), *_cells(side, latency),
              f"{side['peak'] / 2**20:,.0f}"] for name, side in sides.items()])]
    return lines[1:]


def ratio(side: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    """The ratio of a side's rate to the baseline's, with the range; – where there is no baseline."""
    if base is None:
        return "–"
    if side is base:
        return "1"
    result = ratios(rates(side), rates(base))
    between = f" ({result.low:.2f} – {result.high:.2f})" if len(side["repetitions"]) > 1 else ""
    return f"**{result.median:.2f}**{between}"


def _columns(latency: bool) -> list[str]:
    return ["CPU s", "wall s", "evaluations"] if latency else [
        "pictures per wall second", "million parameters", "GFLOP a picture", "GFLOP/s"]


def _cells(side: Mapping[str, Any], latency: bool) -> list[str]:
    """The cells of `_columns`."""
    facts = side["facts"]
    if latency:
        evaluations = facts["steps"] + facts["guided_steps"]
        return [format_spread([one["cpu"] for one in side["repetitions"]]),
                format_spread([one["wall"] for one in side["repetitions"]]), str(evaluations)]
    gflop = facts["gflop"]
    return [format_spread(rates(side, "wall")), f"{facts['parameters'] / 1e6:.2f}", format_number(gflop),
            format_spread([gflop * one for one in rates(side)])]


def circumstances(report: Mapping[str, Any]) -> str:
    """One line: the date, the machine, the way of measuring, the load and the versions."""
    machine, before, after = report["machine"], report["load_before"][0], report["load_after"][0]
    units = f", {' and '.join(machine['bf16_units'])}" if machine["bf16_units"] else ""
    busy = max(before, after) > BUSY_LOAD
    load = (f"Other work ran beside (load {before:.1f} before, {after:.1f} after): trust CPU seconds, not wall "
            "seconds." if busy else f"Load {before:.1f} before, {after:.1f} after.")
    return (f"{report['date']}; {machine['cores']} cores of {machine['cpu']}{units}, {machine['memory_gib']} GiB; "
            f"{report['processes']}; {_repetitions(report)}{_seeds(report)}. {load} {versions(report)}")


def _repetitions(report: Mapping[str, Any]) -> str:
    count = report["repetitions"]
    return "one repetition" if count == 1 else (
        f"medians of {count} repetitions in turn (lowest – highest), one repetition where no range is shown")


def _seeds(report: Mapping[str, Any]) -> str:
    return f"; seeds {', '.join(map(str, report['seeds']))}" if report["seeds"] else ""


def versions(report: Mapping[str, Any]) -> str:
    """The versions of every package that any side had, each package once."""
    known: dict[str, set[str]] = {}
    for case in report.get("cases", []):
        for side in case["sides"].values():
            for package, version in side["versions"].items():
                known.setdefault(package, set()).add(version)
    return ", ".join(f"{package} {' and '.join(sorted(numbers))}" for package, numbers in sorted(known.items())) + "."
