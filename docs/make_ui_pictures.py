"""Write docs/pictures/ui.png and ui-phone.png: the page of `diffuse ui` in a real Chromium, on a desk and on a phone.

    python docs/make_ui_pictures.py

They show pictures of `demo-fast`, and one of them with a mask painted over it.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/helpers"))

import browser  # noqa: E402
from page_client import served  # noqa: E402

FINISHED = ("document.querySelectorAll('figcaption:not([hidden])').length == 8 && "
            "document.getElementById('cancel').hidden")


def _draw(page: browser.Page, prompt: str, seed: int) -> None:
    page.wait_for("document.body?.dataset.ready")
    page.run(f"document.getElementById('prompt').value = {prompt!r}; document.getElementById('seed').value = {seed}")
    page.run("document.getElementById('form').requestSubmit()")
    page.wait_for(FINISHED)


def main() -> None:
    """Write both pictures."""
    with served("demo-fast") as client, tempfile.TemporaryDirectory() as profile, browser.opened(Path(profile)) as page:
        page.show(client.server.address, height=800)
        _draw(page, "a red car on grass at night", 3)
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
        page.picture(ROOT / "docs/pictures/ui.png")
        page.show(client.server.address, width=390, height=844, dark=True)
        _draw(page, "a blue fish in the sea", 5)
        page.picture(ROOT / "docs/pictures/ui-phone.png")


if __name__ == "__main__":
    main()
