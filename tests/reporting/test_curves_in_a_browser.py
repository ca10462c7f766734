"""Curves of a report under a real mouse: values where it points, a part enlarged where it drags."""

import re

import browser
import pytest

from diffuse_cli.reporting import page as html
from diffuse_cli.reporting.svg_curves import Chart, Curve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600),
              pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium")]

STEPS = range(0, 101, 10)
WINDOWS = [{"width": 1280}, {"width": 1280, "dark": True}, {"width": 390, "height": 844}]
READOUT = "document.querySelectorAll('.readout')[{}].textContent"
TICKS = "[...document.querySelectorAll('svg[data-axes]')[{}].querySelectorAll('text')].map(text => text.textContent)"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of two charts: 100 - step and 7; and 1000 / (1 + step), whose axis is logarithmic."""
    folder = tmp_path_factory.mktemp("curves")
    charts = [
        Chart(title="One", explanation="", curves=[
            Curve(label="training", x=STEPS, y=[100.0 - step for step in STEPS], colour="var(--curve-1)"),
            Curve(label="held out", x=STEPS, y=[7.0] * len(STEPS), colour="var(--curve-2)", dots=True)]),
        Chart(title="Two", explanation="", log=True, curves=[
            Curve(label="loss", x=STEPS, y=[1000 / (1 + step) for step in STEPS], colour="var(--curve-1)")])]
    body = f'<div class="curves">{"".join(map(html.chart, charts))}</div>'
    (folder / "page.html").write_bytes(html.build(title="curves", subtitle="", body=body))
    with browser.opened(folder / "profile") as opened:
        opened.address = (folder / "page.html").as_uri()
        yield opened
        assert opened.errors == []
        assert {address for address in opened.asked if not address.startswith("data:")} == {opened.address}


def _load(page, window: dict) -> None:
    page.run("document.title = 'the page before'")
    page.show(page.address, **window)
    page.wait_for("document.title == 'curves' && document.querySelectorAll('.readout').length == 2")


def _mouse(page, kind: str, chart: int, step: float, *, clicks: int = 1) -> None:
    """Move, press or release the mouse over a step of a chart, in the middle of its height."""
    left, right, low, high, *_ = map(float, page.run(
        f"document.querySelectorAll('svg[data-axes]')[{chart}].dataset.axes").split())
    box = page.run("(({x, y, width, height}) => [x, y, width, height])"
                   f"(document.querySelectorAll('svg[data-axes]')[{chart}].getBoundingClientRect())")
    across = (left + (step - low) / (high - low) * (right - left)) / 374
    page.call("Input.dispatchMouseEvent", type=kind, x=box[0] + across * box[2], y=box[1] + 0.5 * box[3],
              clickCount=clicks, button="none" if kind == "mouseMoved" else "left")


def _drag(page, chart: int, first: float, last: float) -> None:
    _mouse(page, "mousePressed", chart, first)
    _mouse(page, "mouseMoved", chart, (first + last) / 2)
    _mouse(page, "mouseMoved", chart, last)
    _mouse(page, "mouseReleased", chart, last)


def _number(text: str) -> float:
    return float(text.replace("−", "-"))


@pytest.mark.parametrize("window", WINDOWS)
def test_the_values_under_the_mouse_are_those_of_the_curves(page, window):
    _load(page, window)
    page.run("document.querySelector('svg[data-axes]').scrollIntoView({block: 'center'})")
    _mouse(page, "mouseMoved", 0, 31)
    seen = re.fullmatch(r"step (\d+): training ([\d.]+), held out ([\d.]+)", page.wait_for(READOUT.format(0)))
    assert [float(number) for number in seen.groups()] == pytest.approx([30, 70, 7], rel=0.02)
    assert not page.run("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.parametrize("window", WINDOWS)
def test_a_drag_enlarges_a_part_and_a_double_click_shows_the_whole(page, window):
    _load(page, window)
    page.run("document.querySelectorAll('svg[data-axes]')[1].scrollIntoView({block: 'center'})")
    whole = page.run(TICKS.format(1))
    _drag(page, 1, 88, 48)                                             # backwards, as well
    steps, losses = [[_number(text) for text in page.run(
        f"[...document.querySelectorAll('svg[data-axes]')[1].querySelectorAll('text[text-anchor={anchor}]')]"
        ".map(text => text.textContent)") if text != "step"] for anchor in ("middle", "end")]
    assert 48 <= min(steps) < max(steps) <= 88
    assert 1000 / 81 * 0.95 <= min(losses) < max(losses) <= 1000 / 51 * 1.05       # of the points from 50 to 80
    assert page.run("[...document.querySelectorAll('text')].every(text => text.getBoundingClientRect().left >= "
                    "text.ownerSVGElement.getBoundingClientRect().left)")          # none is cut off
    _mouse(page, "mouseMoved", 1, 50)                                  # the middle of what is seen: 68
    seen = re.fullmatch(r"step (\d+): loss ([\d.]+)", page.run(READOUT.format(1)))
    assert [float(number) for number in seen.groups()] == pytest.approx([70, 1000 / 71], rel=0.02)
    for clicks in (1, 2):
        _mouse(page, "mousePressed", 1, 50, clicks=clicks)
        _mouse(page, "mouseReleased", 1, 50, clicks=clicks)
    assert page.run(TICKS.format(1)) == whole
