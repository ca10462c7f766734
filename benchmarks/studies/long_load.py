"""Whether memory stays flat under a long load: many prompts, many programs at once, many training steps.

    python -m benchmarks.studies.long_load

A small model of 8 pixels is trained first, because memory that grows with every prompt or step does so at any size. The
resident memory of each program is read four times a second; a leak shows as growth from the second quarter of its time
to the last.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DIFFUSE = (sys.executable, "-P", "-m", "diffuse_cli")
RECIPE = "--resolution 8 --preset nano --batch-size 4 --device cpu --precision fp32 -q"
INTERVAL = 0.25                                 # seconds between two looks at the memory
PAGE = os.sysconf("SC_PAGE_SIZE")


def start(words: str) -> subprocess.Popen[bytes]:
    """Start `diffuse` with these words."""
    return subprocess.Popen([*DIFFUSE, *words.split()], stdout=subprocess.DEVNULL)


def watch(programs: list[subprocess.Popen[bytes]]) -> list[list[int]]:
    """The bytes of resident memory of each program, again and again until all have ended. Raises if one failed."""
    series: list[list[int]] = [[] for _ in programs]
    while any(program.poll() is None for program in programs):
        for program, values in zip(programs, series, strict=True):
            if program.poll() is None and (resident := _resident(program.pid)):
                values.append(resident)
        time.sleep(INTERVAL)
    for program in programs:
        if program.returncode:
            raise SystemExit(f"{program.args!r} ended with {program.returncode}")
    return series


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def quarters(values: list[int]) -> tuple[float, float, float]:
    """The median of the second quarter of a series, that of the last, and the maximum, in MB."""
    count = len(values)
    second, last = values[count // 4:count // 2] or values, values[3 * count // 4:]
    return statistics.median(second) / 1e6, statistics.median(last) / 1e6, max(values) / 1e6


def main() -> None:
    """Run the three loads and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=5_000)
    parser.add_argument("--programs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=2_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ |= {"DIFFUSE_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
        (place / "home").mkdir(mode=0o700)
        watch([start(f"data demo {place}/scenes -n 60 --resolution 16 -q")])
        watch([start(f"train {place}/scenes --name small --steps 20 {RECIPE}")])
        (place / "prompts").write_text("".join(f"a red car, number {number}\n" for number in range(given.prompts)))
        loads = {
            f"{given.prompts:,} prompts in one `sample`":
                [f"sample --prompts {place}/prompts -m small --steps 1 -o {place}/many -q"],
            f"{given.programs} `sample` at once, 8 pictures each":
                [f"sample red -n 8 -m small --steps 4 -o {place}/drawn -q"] * given.programs,
            f"{given.steps:,} training steps": [f"train {place}/scenes --name long --steps {given.steps} {RECIPE}"],
        }
        for load, lines in loads.items():
            begun = time.monotonic()
            series = watch([start(line) for line in lines])
            medians = [quarters(values) for values in series]
            second, last, most = (max(column) for column in zip(*medians, strict=True))
            print(f"| {load} | {second:.0f} MB | {last:.0f} MB | {most:.0f} MB | {time.monotonic() - begun:.0f} s |",
                  flush=True)
        drawn = len(list((place / "drawn").glob("*.png")))
        assert drawn == 8 * given.programs, drawn                       # each has a number of its own


if __name__ == "__main__":
    main()
