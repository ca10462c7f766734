"""How long help takes, against `python -c "import torch"`: whole processes in turn, medians.

    python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time

COMMANDS = (["--help"], ["train", "--help"], ["sample", "--help"], ["models", "--help"], ["data", "--help"],
            ["models", "ls"])
RUNS = 7


def seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - begun


def main() -> None:
    python = [sys.executable, "-c", "import torch"]
    for arguments in COMMANDS:
        ours = [sys.executable, "-m", "diffuse_cli", *arguments]
        seconds(ours), seconds(python)                                 # warm the file cache
        pairs = [(seconds(ours), seconds(python)) for _ in range(RUNS)]
        median, torch = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"diffuse {' '.join(arguments):<15} {median:.3f} s   import torch {torch:.3f} s   {ratio:.1f} × faster")


if __name__ == "__main__":
    main()
