"""Write the pictures of terminals in docs/pictures: commands as they run, and the live display of a finished training.

Write the two animations of README.md as well: that display, and pictures while they are denoised.

    pip install pyte
    python docs/make_terminal_pictures.py scenes textures

takes a data set and the name of a model that was trained, whose training is shown again from its log. Commands run in
terminals of 80 x 24 and of 120 x 40 characters; a picture shows what such a terminal shows when the command has ended.
"""

import argparse
import contextlib
import fcntl
import io
import json
import os
import pty
import shlex
import shutil
import struct
import subprocess
import tempfile
import termios
from pathlib import Path

import matplotlib
import pyte
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from diffuse_cli import events
from diffuse_cli.checks import from_dict
from diffuse_cli.cli.terminal import dashboard, view
from diffuse_cli.errors import DiffuseError
from diffuse_cli.storage import home_directory
from diffuse_cli.storage.event_log import LOG_FILE

PICTURES = Path(__file__).with_name("pictures")
SIZES = (80, 24), (120, 40)
CELL = 9, 18
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
GROUND, INK = "1d1f21", "d0d0d0"
COLOURS = {"black": "1d1f21", "red": "e06c75", "green": "98c379", "brown": "e5c07b", "blue": "61afef",
           "magenta": "c678dd", "cyan": "56b6c2", "white": "d0d0d0", "brightblack": "7f848e"}
EIGHTHS = "▁▂▃▄▅▆▇█"
DENOISED = ("a red car", "a blue fish in the sea", "a yellow star at night", "a green tree on grass")
FRAMES, FRAME_MS, LAST_MS = 24, 250, 3000


def draw(screen: pyte.Screen) -> Image.Image:
    """The cells of a terminal. Blocks are drawn as rectangles, so that no line shows between them."""
    (width, height), fonts = CELL, [ImageFont.truetype(str(FONTS / f"DejaVuSansMono{style}.ttf"), 15)
                                    for style in ("", "-Bold")]
    picture = Image.new("RGB", (screen.columns * width + 16, screen.lines * height + 16), f"#{GROUND}")
    pen = ImageDraw.Draw(picture)
    for row in range(screen.lines):
        for column in range(screen.columns):
            cell, left, top = screen.buffer[row][column], 8 + column * width, 8 + row * height
            ink, ground = _colour(cell.fg, INK), _colour(cell.bg, GROUND)
            if cell.reverse:
                ink, ground = ground, ink
            pen.rectangle((left, top, left + width - 1, top + height - 1), ground)
            if cell.data == "▀":
                pen.rectangle((left, top, left + width - 1, top + height // 2 - 1), ink)
            elif cell.data in EIGHTHS and cell.data:
                filled = height * (EIGHTHS.index(cell.data) + 1) // 8
                pen.rectangle((left, top + height - filled, left + width - 1, top + height - 1), ink)
            elif cell.data.strip():
                pen.text((left, top + 1), cell.data, ink, fonts[cell.bold])
    return picture


def _colour(name: str, usual: str) -> str:
    return f"#{usual if name == 'default' else COLOURS.get(name, name)}"


def run(command: list[str], columns: int, lines: int, folder: Path) -> Image.Image:
    """What a terminal shows after `$ command`, whose output it emulates."""
    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {shlex.join(command)}\r\n".encode())
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder,
                               env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"})
    os.close(terminal)
    with contextlib.suppress(OSError):                                 # the other end is closed when the command ends
        while data := os.read(controller, 65536):
            stream.feed(_without_dim(data))
    process.wait()
    return draw(screen)


def _without_dim(data: bytes) -> bytes:
    """Grey instead of dim text, which the emulator does not know."""
    return data.replace(b"\x1b[2m", b"\x1b[90m").replace(b"\x1b[2;", b"\x1b[90;")


def replay(name: str, columns: int, lines: int) -> list[Image.Image]:
    """The live display of a finished training at FRAMES times, and what it leaves behind. The last is the end."""
    log = home_directory.models_directory() / name / LOG_FILE
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    kinds = {"started": events.Started, "stepped": events.Stepped, "validated": events.Validated,
             "previewed": events.Previewed, "saved": events.Saved, "finished": events.Finished}
    steps = [entry["step"] for entry in entries if entry["event"] == "stepped"]
    due = [steps[(len(steps) - 1) * number // (FRAMES - 1)] for number in range(FRAMES)]
    pictures, output = [], io.StringIO()
    view.start()
    view._console = Console(file=output, force_terminal=True, color_system="truecolor", width=columns, height=lines)
    view.live = lambda render: contextlib.nullcontext()                # frames are taken here instead
    with dashboard.TrainingView() as shown:
        for entry in entries:
            kind = kinds.get(entry.pop("event"))
            entry.pop("schema")
            if kind is None:
                continue
            with contextlib.suppress(DiffuseError):
                shown.show(from_dict(kind, entry))
            if kind is events.Stepped and due and entry["step"] >= due[0]:
                due = [step for step in due if step > entry["step"]]
                pictures.append(_frame(output.getvalue(), shown._render(), columns, lines))
    pictures.append(_frame(output.getvalue(), "", columns, lines))
    return pictures


def _frame(before: str, display: object, columns: int, lines: int) -> Image.Image:
    screen, output = pyte.Screen(columns, lines), io.StringIO()
    Console(file=output, force_terminal=True, color_system="truecolor", width=columns, height=lines).print(display)
    pyte.ByteStream(screen).feed(_without_dim((before + output.getvalue()).rstrip().replace("\n", "\r\n").encode()))
    return draw(screen)


def save(picture: Image.Image, name: str) -> None:
    """Write a small PNG, of at most 255 colours."""
    picture.quantize(255, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)


def denoise() -> None:
    """Write the animation of four pictures that are denoised; each stands beside the network's estimate of it."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["diffuse", "sample", *DENOISED, "-s", "0", "-m", "demo", "--grid", "--animate", "-o", folder],
                       check=True, stdout=subprocess.DEVNULL)
        shutil.copyfile(next(Path(folder).glob("*-grid.webp")), PICTURES / "denoising.webp")


def main() -> None:
    """Write all pictures."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data", type=Path)
    arguments.add_argument("name")
    given = arguments.parse_args()
    data = given.data.name
    commands = {"data-check": ["diffuse", "data", "check", data],
                "models-show": ["diffuse", "models", "show", given.name], "noise-demo": ["diffuse", "noise-demo"],
                "sample": ["diffuse", "sample", "a red car", "-n", "4", "-s", "0", "-m", "demo-fast", "--preview"]}
    for columns, lines in SIZES:
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, data).symlink_to(given.data.resolve())
                save(run(command, columns, lines, Path(folder)), f"terminal-{name}-{columns}x{lines}")
        *frames, end = replay(given.name, columns, lines)
        save(frames[-1], f"terminal-training-{columns}x{lines}")
        save(end, f"terminal-trained-{columns}x{lines}")
        if (columns, lines) == SIZES[0]:
            frames[0].save(PICTURES / "training.webp", save_all=True, append_images=[*frames[1:], end], loop=0,
                           duration=[FRAME_MS] * len(frames) + [LAST_MS], quality=80, method=6)
    denoise()


if __name__ == "__main__":
    main()
