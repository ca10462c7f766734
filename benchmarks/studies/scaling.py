"""What does a step cost with larger networks and more processes? Pictures per second, memory, and time of saving.

Each row is a real training of `--seconds` through the command line, on demo pictures; its events have the figures.

    python -m benchmarks.studies.scaling --presets nano micro small --procs 1 2 --resolution 32 --json scaling.json
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def diffuse(arguments: list[str], home: Path, *, threads: int | None = None) -> str:
    """Run a `diffuse` command with the directory `home` as its DIFFUSE_HOME. → its stdout

    threads: of each process; None: the command's own choice. Raises CalledProcessError.
    """
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    environment = {**os.environ, "DIFFUSE_HOME": str(home), **limit}
    return subprocess.run([sys.executable, "-m", "diffuse_cli", *arguments], env=environment, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def measure(folder: Path, home: Path, *, preset: str, procs: int, resolution: int, batch_size: int, seconds: int,
            gpu: bool, threads: int | None = None) -> dict[str, Any]:
    """The figures of one training. Pictures per second are the median of the second half of its reports: then a new
    network sees whole pictures.
    """
    count = ["--gpus" if gpu else "--procs", str(procs)]
    lines = diffuse(["train", str(folder), "--preset", preset, "--resolution", str(resolution), "--batch-size",
                     str(batch_size), "--time", f"{seconds}s", "--name", f"{preset}-{procs}", "--json", "--fresh",
                     "--preview-every", "100%", "--save-every", "100%", *count], home, threads=threads).splitlines()
    events = [json.loads(line) for line in lines]
    started = next(event for event in events if event["event"] == "started")
    reports = [event for event in events if event["event"] == "stepped"]
    saved = [event for event in events if event["event"] == "saved"][-1]
    rate = statistics.median(event["images_per_second"] for event in reports[len(reports) // 2:])
    return {"preset": preset, "processes": procs, "parameters": started["parameters"], "images_per_second": rate,
            "seconds_per_step": batch_size / rate, "memory_bytes": max(event["memory"] for event in reports),
            "state_bytes": saved["bytes"], "save_seconds": saved["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", default=["nano", "micro", "small"])
    parser.add_argument("--procs", nargs="*", type=int, default=[1, 2], help="numbers of processes")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=60, help="of each training")
    parser.add_argument("--gpu", action="store_true", help="--procs count GPUs")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as work:
        home, folder = Path(work) / "home", Path(work) / "scenes"
        home.mkdir(mode=0o700)
        diffuse(["data", "demo", str(folder), "-n", "1000", "--resolution", str(options.resolution)], home)
        print("| preset | million parameters | processes | pictures/s | s/step | memory | state | saved in |")
        print("|---|---|---|---|---|---|---|---|")
        for preset, procs in itertools.product(options.presets, options.procs):
            row = measure(folder, home, preset=preset, procs=procs, resolution=options.resolution,
                          batch_size=options.batch_size, seconds=options.seconds, gpu=options.gpu)
            results.append(row)
            print(f"| {preset} | {row['parameters'] / 1e6:.1f} | {procs} | {row['images_per_second']:.1f} "
                  f"| {row['seconds_per_step']:.2f} | {row['memory_bytes'] / 2**20:.0f} MB "
                  f"| {row['state_bytes'] / 2**20:.0f} MB | {row['save_seconds']:.2f} s |", flush=True)
    if options.json:
        report = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "resolution": options.resolution,
                  "batch_size": options.batch_size, "results": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
