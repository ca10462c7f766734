"""Run the commands of docs/cookbook.md as they are written there, and make its pictures.

    python docs/run_cookbook.py DIR            # all tasks, in the new folder DIR
    python docs/run_cookbook.py DIR 1 6        # these tasks
    python docs/run_cookbook.py DIR

Task 6 starts from the model of task 1. All models stay in DIR/models.
"""

import argparse
import os
import re
import resource
import subprocess
import time
from pathlib import Path

from PIL import Image

PAGE = Path(__file__).with_name("cookbook.md")
PICTURES = Path(__file__).with_name("pictures")


def tasks(page: str) -> dict[int, str]:
    """The commands of each task of the page, by the number in its heading; each is one script for bash."""
    sections = re.split(r"^## (\d+)\. .*$", page, flags=re.MULTILINE)[1:]
    return {int(number): "\n".join(re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
            for number, text in zip(sections[::2], sections[1::2], strict=True)}


def run(number: int, script: str, folder: Path) -> None:
    """Run one task in `folder`, and print how long it took. Raises `CalledProcessError` when a command fails."""
    print(f"task {number}", flush=True)
    started = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, check=True,
                   env={**os.environ, "DIFFUSE_HOME": str(folder / "models")})
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = ended.ru_utime + ended.ru_stime - started[1].ru_utime - started[1].ru_stime
    print(f"task {number}: {time.monotonic() - started[0]:.0f} s, {processor:.0f} s of processor time", flush=True)


def take_picture(number: int, script: str, folder: Path) -> None:
    """Make the sheet of a task the page's picture, in 255 colours."""
    drawn = re.findall(r" -o (\S+)", script)[-1]
    with Image.open(next((folder / drawn).glob("*-sheet.png"))) as sheet:
        small = sheet.convert("RGB").quantize(255, dither=Image.Dither.NONE)
    small.save(PICTURES / f"cookbook-{number}.png", optimize=True)


def main() -> None:
    """Run the tasks that the arguments name."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("dir", type=Path)
    arguments.add_argument("tasks", type=int, nargs="*")
    arguments.add_argument("--pictures", action="store_true")
    chosen = arguments.parse_args()
    scripts = tasks(PAGE.read_text(encoding="utf-8"))
    chosen.dir.mkdir(parents=True, exist_ok=True)
    for number in chosen.tasks or scripts:
        run(number, scripts[number], chosen.dir.resolve())
        if chosen.pictures:
            take_picture(number, scripts[number], chosen.dir)


if __name__ == "__main__":
    main()
