"""Write pictures of the pages in a real Chromium, 1280 and 390 pixels wide, in the light and in the dark.

    python docs/make_ui_pictures.py textures

docs/pictures/ui-*.png show the page of `diffuse ui` with pictures of `demo-fast`, one of them with a mask painted over
it; report-*.png show the report of a model that was trained, here `textures`; web-*.png show docs/index.html, as it
draws with the bundled model.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

from diffuse_cli.storage import registry

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs/pictures"
sys.path.insert(0, str(ROOT / "tests/helpers"))

import browser  # noqa: E402
from page_client import served  # noqa: E402

FINISHED = ("document.querySelectorAll('figcaption:not([hidden])').length == 8 && "
            "document.getElementById('cancel').hidden")
DRAWN = "/pictures? in/.test(document.getElementById('status')?.textContent)"
WINDOWS = {"1280-light": (1280, 800, False), "1280-dark": (1280, 800, True), "390-light": (390, 844, False),
           "390-dark": (390, 844, True)}


def _draw(page: browser.Page, prompt: str, seed: int) -> None:
    page.wait_for("document.body?.dataset.ready")
    page.run(f"document.getElementById('prompt').value = {prompt!r}; document.getElementById('seed').value = {seed}")
    page.run("document.getElementById('form').requestSubmit()")
    page.wait_for(FINISHED)


def _paint(page: browser.Page) -> None:
    page.run("document.querySelector('.start').click()")
    page.wait_for("!document.getElementById('start').hidden")
    box = page.run("(({left, top, width}) => [left, top, width])"
                   "(document.getElementById('start-canvas').getBoundingClientRect())")
    for step in range(11):
        page.call("Input.dispatchMouseEvent", type="mouseMoved" if step else "mousePressed", button="left",
                  x=box[0] + (0.15 + 0.07 * step) * box[2], y=box[1] + 0.2 * box[2], buttons=1, clickCount=1)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", button="left", x=box[0], y=box[1], clickCount=1)
    page.run("document.querySelector('.copy').click()")
    page.wait_for("!document.querySelector('pre').hidden")


def _take(page: browser.Page, name: str) -> None:
    """Write what the window shows, in 255 colours."""
    page.picture(PICTURES / f"{name}.png")
    with Image.open(PICTURES / f"{name}.png") as picture:
        small = picture.convert("RGB").quantize(255, dither=Image.Dither.NONE)
    small.save(PICTURES / f"{name}.png", optimize=True)


def main() -> None:
    """Write all pictures."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("name")
    report = registry.resolve(arguments.parse_args().name).with_name(registry.REPORT_FILE)
    with served("demo-fast") as client, tempfile.TemporaryDirectory() as profile, browser.opened(Path(profile)) as page:
        for window, (width, height, dark) in WINDOWS.items():
            page.show(report.as_uri(), width=width, height=height, dark=dark)
            page.wait_for("document.readyState == 'complete'")
            _take(page, f"report-{window}")
            page.show(client.server.address, width=width, height=height, dark=dark)
            _draw(page, "a red car on grass at night" if width > 600 else "a blue fish in the sea", 3)
            if width > 600:
                _paint(page)
            _take(page, f"ui-{window}")
            page.show(f"{(ROOT / 'docs/index.html').as_uri()}?{window}#prompt=a+red+car&seed=0&count=8",
                      width=width, height=height, dark=dark)
            page.wait_for(DRAWN)
            _take(page, f"web-{window}")


if __name__ == "__main__":
    main()
