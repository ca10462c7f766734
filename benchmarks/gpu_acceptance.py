"""Is the program right and fast on this GPU? One command, eight minutes at most, for a machine without a network.

    PYTHONPATH=src python benchmarks/gpu_acceptance.py --out DIR
    PYTHONPATH=src python benchmarks/gpu_acceptance.py --out DIR --device cpu --tiny     a rehearsal without a GPU

Nothing is installed. Packages that the machine lacks can travel as wheels: `--wheels FOLDER`. The parts run one after
the other, the most valuable first, each in a process of its own that is ended at its deadline. Whatever a part has
found is appended to DIR/results.jsonl at once, one line of JSON for each unit: its result, or the error that ended it.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import zipfile
from pathlib import Path
from typing import Any

if not __package__:                             # started as a file: `python benchmarks/gpu_acceptance.py`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.gpu import Settings

# Part → its deadline in seconds, most valuable first. The module in benchmarks/gpu of the same name has the units.
PARTS = {
    "facts": 15, "parity": 25, "throughput": 75, "kernels": 20, "compiled": 80, "pictures": 25, "memory": 20,
    "resume": 40, "processes": 20, "training": 110, "commands": 30}
SECONDS = 470                                   # of all parts together
LEAST = 5                                       # seconds below which a part is not begun
TRACEBACK = 1500                                # characters of a traceback that are kept, the last ones


def record(settings: Settings, part: str, unit: str, seconds: float, **found: Any) -> None:
    """Append a line to the results, and show it."""
    line = json.dumps({"part": part, "unit": unit, "seconds": round(seconds, 2), **found})
    with settings.results.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(line, flush=True)


def run_units(settings: Settings, part: str) -> bool:
    """Run a part's units in this process; an error ends only its unit. → whether all have passed"""
    good, begun = True, time.monotonic()
    try:
        units = importlib.import_module(f"benchmarks.gpu.{part}").units(settings)
    except Exception:
        record(settings, part, "import", time.monotonic() - begun, error=traceback.format_exc()[-TRACEBACK:])
        return False
    for unit, work in units:
        begun = time.monotonic()
        try:
            result = work()
        except Exception:
            good = False
            record(settings, part, unit, time.monotonic() - begun, error=traceback.format_exc()[-TRACEBACK:])
        else:
            good &= result.get("passed", True)
            record(settings, part, unit, time.monotonic() - begun, result=result)
    return good


def run_part(settings: Settings, part: str, arguments: list[str], seconds: float) -> bool:
    """Run a part in a process of its own, with everything that it starts, for so many seconds. → whether it was good"""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), *arguments, "--part", part], start_new_session=True,
        env={**os.environ, "DIFFUSE_HOME": str(settings.home), "TOKENIZERS_PARALLELISM": "false"})
    try:
        code = process.wait(timeout=seconds)
        if code not in (0, 1):                  # 1: the units have said why
            record(settings, part, "end", time.monotonic() - begun, error=f"the process ended with {code}")
        return code == 0
    except subprocess.TimeoutExpired:
        record(settings, part, "end", time.monotonic() - begun, error=f"ended at its deadline of {seconds:.0f} s")
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):                  # also what the part has started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_all(settings: Settings, parts: list[str], arguments: list[str], seconds: float) -> bool:
    """Run the parts one after the other. → whether all were good"""
    good, begun = True, time.monotonic()
    for part in parts:
        left = seconds - (time.monotonic() - begun)
        if left < LEAST:
            record(settings, part, "end", 0.0, error="not begun: no time was left")
            good = False
        else:
            good &= run_part(settings, part, arguments, min(PARTS[part] * settings.patience, left))
    return good


def unpack(wheels: Path, target: Path) -> None:
    """Unpack wheels where `use_wheels` finds them."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)


def use_wheels(target: Path) -> None:
    """Let this process, and those that it starts, import what was unpacked and is not installed."""
    if target.is_dir():
        sys.path.append(str(target))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(target))))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="directory for results.jsonl and for the work")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--tiny", action="store_true", help="sizes for a rehearsal on a CPU, of two or three minutes")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of packages that are not installed")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all parts together (default %(default)s)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)         # the one to run in this process
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    settings = Settings(options.out.absolute(), options.device, options.tiny)
    unpacked = settings.out / "packages"
    use_wheels(unpacked)
    if options.part:
        with settings.scaled_down():
            return 0 if run_units(settings, options.part) else 1
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if options.wheels:
        unpack(options.wheels, unpacked)
    handed = ["--out", str(settings.out), "--device", settings.device, *(["--tiny"] if settings.tiny else [])]
    return 0 if run_all(settings, options.parts or list(PARTS), handed, options.seconds) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
