"""Measures every claim of speed and quality again, side by side with the peers, with one command.

    python -m benchmarks.run peers                      make the environment of the peers (once; minutes)
    python -m benchmarks.run --quick                    measure everything, briefly
    python -m benchmarks.run training sampling          measure only these
    python -m benchmarks.run render                     write docs/benchmarks.md from the results again

Each measurement is written to benchmarks/results/NAME.json with all its repetitions, and docs/benchmarks.md is
written again from these files.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

if not __package__:                             # started as a file: `python benchmarks/run.py`
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.harness import peers, render
from benchmarks.harness.harness import ROOT, Settings, record

RESULTS = ROOT / "benchmarks" / "results"


def measure(name: str, settings: Settings) -> None:
    """Run a measurement, and write its report to RESULTS."""
    print(f"── {name}", flush=True)
    with record(name, settings) as report:
        importlib.import_module(f"benchmarks.measurements.{name}").measure(settings, report)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(_without_paths(report), indent=1) + "\n")


def _without_paths(value: Any) -> Any:
    """A copy of a report without the entries that are absolute paths on this machine."""
    if isinstance(value, dict):
        return {key: _without_paths(entry) for key, entry in value.items()
                if not (isinstance(entry, str) and Path(entry).is_absolute())}
    return [_without_paths(entry) for entry in value] if isinstance(value, list | tuple) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(render.NAMES)}; or peers, or render")
    parser.add_argument("--quick", action="store_true", help="fewer cases and repetitions")
    parser.add_argument("--repetitions", type=int, help="repetitions of each contender (default 5; quick: 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="approximate CPU seconds of one repetition")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of each training of `quality`")
    parser.add_argument("--seeds", type=int, nargs="*", help="seeds of `quality` (default 0 1 2; quick: 0)")
    parser.add_argument("--data", nargs="*", default=["scenes", "digits"], choices=["scenes", "digits"],
                        help="data sets of `quality`")
    parser.add_argument("--work", type=Path, help="keep the results of `quality` in this directory, and reuse those "
                        "that are there")
    parser.add_argument("--core", type=int, default=1, help="the one core to measure on; -1: any")
    parser.add_argument("--peers", type=Path, default=peers.DIRECTORY, help="directory of the peers' environment")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    options = parser.parse_args()
    if unknown := set(options.names) - {*render.NAMES, "peers", "render"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")

    names = options.names or list(render.NAMES)
    interpreter = None if options.alone or names == ["render"] else peers.make(options.peers.absolute())
    seeds = options.seeds if options.seeds is not None else [0] if options.quick else [0, 1, 2]
    settings = Settings(
        peers=interpreter, core=None if options.core < 0 else options.core, seconds=options.seconds,
        repetitions=options.repetitions or (3 if options.quick else 5), seeds=tuple(seeds), minutes=options.minutes,
        data=tuple(options.data), work=options.work and options.work.absolute(), quick=options.quick)
    for name in names:
        if name in render.NAMES:
            measure(name, settings)
    render.write_page(RESULTS, ROOT / "docs")


if __name__ == "__main__":
    main()
