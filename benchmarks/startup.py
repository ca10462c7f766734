"""How long help takes, against a Typer program of two empty commands and `import torch`: whole processes, medians.

    python benchmarks/startup.py
"""

import os
import statistics
import subprocess
import sys
import time

EMPTY = """
import typer
app = typer.Typer(rich_markup_mode="rich")
@app.command()
def train(steps: int = typer.Option(1, help="Steps.")): pass
@app.command()
def sample(steps: int = typer.Option(1, help="Steps.")): pass
app()
"""
COMMANDS = (["--help"], ["train", "--help"], ["sample", "--help"], ["models", "--help"], ["data", "--help"],
            ["noise-demo", "--help"], ["models", "ls"])
RUNS = 7


def seconds(command: list[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begun = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env=environment)
    return time.perf_counter() - begun


def main() -> None:
    print("| command | seconds | an empty Typer program | import torch |")
    print("|---|---|---|---|")
    for arguments in COMMANDS:
        empty = ["--help"] if len(arguments) == 1 else ["train", "--help"]
        rivals = ([sys.executable, "-m", "diffuse_cli", *arguments], [sys.executable, "-c", EMPTY, *empty],
                  [sys.executable, "-c", "import torch"])
        for rival in rivals:                                           # warm the file cache
            seconds(rival)
        rounds = [[seconds(rival) for rival in rivals] for _ in range(RUNS)]
        ours, typer, torch = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| diffuse {' '.join(arguments)} | {ours:.2f} | {typer:.2f} | {torch:.2f} |")


if __name__ == "__main__":
    main()
