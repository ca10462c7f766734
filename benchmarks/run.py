"""Every claim of speed and quality, measured again, side by side with the peers, with one command.

    python -m benchmarks.run peers                      make the peers' environment (once; minutes)
    python -m benchmarks.run --quick                    measure everything, briefly
    python -m benchmarks.run training sampling          measure some of it
    python -m benchmarks.run gpu                        where there is one: not part of everything
    python -m benchmarks.run render                     docs/benchmarks.md anew from the results

What was measured is written to benchmarks/results/NAME.json, every repetition of it, and docs/benchmarks.md follows.
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
    """Measure, write the result down."""
    print(f"── {name}", flush=True)
    with record(name, settings) as report:
        importlib.import_module(f"benchmarks.measurements.{name}").measure(settings, report)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(_without_paths(report), indent=1) + "\n")


def _without_paths(found: Any) -> Any:
    """What was found, without the entries that name places on this machine."""
    if isinstance(found, dict):
        return {key: _without_paths(value) for key, value in found.items()
                if not (isinstance(value, str) and Path(value).is_absolute())}
    return [_without_paths(value) for value in found] if isinstance(found, list | tuple) else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(render.NAMES)}; or peers, or render")
    parser.add_argument("--quick", action="store_true", help="fewer cases and repetitions")
    parser.add_argument("--repetitions", type=int, help="of everything, in turn (default 5; quick: 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU seconds of a repetition, about")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of each training in `quality`")
    parser.add_argument("--seeds", type=int, nargs="*", help="of `quality` (default 0 1 2; quick: 0)")
    parser.add_argument("--data", nargs="*", default=["scenes", "digits"], choices=["scenes", "digits"],
                        help="of `quality`")
    parser.add_argument("--work", type=Path, help="keep what `quality` finds here, and go on from what is there")
    parser.add_argument("--core", type=int, default=1, help="the one core that is measured on; -1: any")
    parser.add_argument("--device", default="cuda", help="of `gpu`: cpu tries its script without one")
    parser.add_argument("--peers", type=Path, default=peers.DIRECTORY, help="directory of the peers' environment")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    options = parser.parse_args()
    if unknown := set(options.names) - {*render.NAMES, "peers", "render"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")

    wanted = options.names or [name for name in render.NAMES if name != "gpu"]
    interpreter = None if options.alone or wanted == ["render"] else peers.make(options.peers.absolute())
    seeds = options.seeds if options.seeds is not None else [0] if options.quick else [0, 1, 2]
    settings = Settings(
        peers=interpreter, core=None if options.core < 0 else options.core, seconds=options.seconds,
        repetitions=options.repetitions or (3 if options.quick else 5), seeds=tuple(seeds), minutes=options.minutes,
        data=tuple(options.data), work=options.work and options.work.absolute(), quick=options.quick,
        device=options.device)
    for name in wanted:
        if name in render.NAMES:
            measure(name, settings)
    render.write_page(RESULTS, ROOT / "docs")


if __name__ == "__main__":
    sys.exit(main())
