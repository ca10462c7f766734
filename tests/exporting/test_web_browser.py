"""A page of the web export in a real browser: it draws what `diffuse sample` draws, and asks nobody for anything."""

import time

import browser as browsers
import numpy as np
import pytest
import torch
from PIL import Image

from diffuse_cli import api
from diffuse_cli.config import Sampling
from diffuse_cli.sampling.generate import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint, registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900),
              pytest.mark.skipif(browsers.CHROMIUM is None, reason="needs Chromium")]
READY = "!document.getElementById('draw').disabled"
FINISHED = "/pictures? in/.test(document.getElementById('status').textContent)"
PIXELS = """[...document.querySelectorAll("canvas")].map(
    canvas => Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of both bundled models, by name."""
    directory = tmp_path_factory.mktemp("pages")
    return {name: api.export(name, directory / f"{name}.html", to="web") and directory / f"{name}.html"
            for name in ("demo", "demo-fast")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsers.opened(tmp_path_factory.mktemp("profile")) as page:
        yield page


def show(browser, address, **options):
    """Load a page; by way of an empty one, because addresses may differ only behind #."""
    browser.show("about:blank")
    browser.show(address, **options)
    browser.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")


def drawn(browser):
    """The pictures in the gallery, which are squares: (N, R, R, 3) uint8."""
    pixels = np.array(browser.run(PIXELS), np.uint8)
    side = round((pixels.shape[1] // 4) ** 0.5)
    return pixels.reshape(len(pixels), side, side, 4)[..., :3]


@pytest.mark.parametrize(("name", "prompt", "seed", "options"), [
    ("demo-fast", "a red car", 0, {}), ("demo-fast", "two green fish, under water", 10**15, {}),
    ("demo", "a blue house", 3, {}),
    ("demo", "a yellow star at night", 4, {"sampler": "ddim", "steps": 9, "guidance": 5.0})])
def test_the_browser_draws_what_sample_draws(browser, pages, name, prompt, seed, options):
    show(browser, pages[name].as_uri())
    browser.wait_for(READY)
    browser.asked.clear()
    for field, value in {"prompt": prompt, "seed": seed, "count": 2, **options}.items():
        browser.run(f"document.getElementById('form').elements['{field}'].value = {str(value)!r}")
    browser.run("document.getElementById('form').requestSubmit()")
    browser.wait_for(FINISHED)
    model = checkpoint.load_model(registry.resolve(name), torch.device("cpu"))
    request = SampleRequest(prompt=prompt, seed=seed, count=2, sampling=Sampling.of(model.config, **options))
    ours = np.stack([sample.pixels for sample in generate(model, [request])])
    assert np.abs(drawn(browser).astype(int) - ours).max() <= 2
    assert all(address.startswith("blob:") for address in browser.asked)
    assert not browser.errors


def test_a_link_draws_and_the_keyboard_is_enough(browser, pages):
    """The denoising is seen, Escape stops it, Enter draws, and a saved PNG is the picture."""
    show(browser, f"{pages['demo'].as_uri()}#prompt=a+red+car&seed=5&count=1")
    browser.wait_for("/step [1-9]/.test(document.getElementById('status').textContent)")
    seen = [drawn(browser)]
    browser.press("Escape", 27)
    assert browser.run("document.getElementById('status').textContent") == "Stopped."

    browser.run("document.getElementById('prompt').focus()")
    browser.press("Enter", 13)
    browser.wait_for(FINISHED)
    seen.append(drawn(browser))
    browser.run("document.querySelector('#film input').focus()")
    for _ in range(20):
        browser.press("ArrowLeft", 37)
    seen.append(drawn(browser))
    assert not any(np.array_equal(one, other) for one, other in ((seen[0], seen[1]), (seen[1], seen[2])))
    assert seen[2].std() > 60                   # noise
    assert "prompt=a+red+car&negative=&seed=5&count=1" in browser.run("location.hash")


@pytest.mark.parametrize(("link", "says", "is_open"), [
    ("length=1&item=2&__proto__=3&0=4&form=5&steps=5000", "Ready.", True),
    ("sampler=toString&count=100000", "Ready.", False),
    ("seed=9223372036854775807", "The largest seed is 9223372036854775806.", False)])
def test_a_link_sets_no_more_than_the_form_admits(browser, pages, link, says, is_open):
    browser.errors.clear()                      # remarks of Chromium about the drawings before
    show(browser, f"{pages['demo'].as_uri()}#{link}&prompt=%3C/script%3E%3Cimg src=x onerror=alert(1)%3E{'x' * 3000}")
    browser.wait_for("!document.getElementById('draw').disabled")
    assert browser.run("document.getElementById('status').textContent") == says
    assert browser.run("document.getElementById('more').open") == is_open
    assert browser.run("document.getElementById('form').elements.sampler.value") == "dpmpp-2m"
    assert browser.run("document.getElementById('prompt').value.length") == 2000
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert not browser.errors


def test_a_saved_png_is_the_picture(browser, pages, tmp_path):
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    show(browser, f"{pages['demo-fast'].as_uri()}#prompt=A+red+Car!&seed=5&count=1")
    browser.wait_for(FINISHED)
    browser.run("document.querySelector('figcaption button').click()")
    target, end = tmp_path / "a-red-car-5.png", time.monotonic() + 60
    while not target.exists():
        assert time.monotonic() < end, list(tmp_path.iterdir())
        time.sleep(0.1)
    with Image.open(target) as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), drawn(browser)[0])


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_everything_in_its_width(browser, pages, dark):
    show(browser, f"{pages['demo'].as_uri()}", width=390, height=844, dark=dark)
    browser.wait_for(READY)
    browser.run("document.querySelector('details').open = true")
    browser.run("document.getElementById('prompt').value = 'zebra'; document.getElementById('form').requestSubmit()")
    browser.wait_for(FINISHED)
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.run("[...document.querySelectorAll('button, input, canvas')].every(part => "
                       "part.getBoundingClientRect().right <= 390)")
    light = int(browser.run("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
    assert light < 64 if dark else light > 192
    assert "never saw: zebra" in browser.run("document.getElementById('status').textContent")
