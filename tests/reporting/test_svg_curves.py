"""Charts of a report: points where their numbers are, ticks at round numbers, the colours and letters of the page."""

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_page import Page

from diffuse_cli.reporting.svg_curves import HEIGHT, POINTS, WIDTH, Curve, _linear_ticks, _log_ticks, _thinned, svg


def _drawn_points(drawing: str, colour: str) -> list[tuple[float, float]]:
    """Coordinates of the line of that colour, as it lies on the page."""
    paths = re.findall(rf'd="([^"]*)"[^>]*stroke: {re.escape(colour)};', drawing)
    line = max(paths, key=len)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", line)]


def _texts(drawing: str) -> list[str]:
    return [data.strip() for _, data in Page(drawing).texts if data.strip()]


def test_a_curve_is_where_its_numbers_are():
    curve = Curve(label="it", x=[0, 1, 2, 4], y=[1.0, 10.0, math.nan, 100.0], colour="var(--curve-1)")
    (x0, y0), (x1, y1), (x2, y2) = _drawn_points(svg([curve], name="one", log=True), "var(--curve-1)")
    assert (x1 - x0) * 4 == pytest.approx(x2 - x0, abs=1.0)
    assert y0 > y1 > y2                                                # upwards is towards 0
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.3)                  # tenfold is tenfold


def test_the_text_of_a_tick_is_the_number_at_its_place():
    """The height of the text "0.2" is the height of a point whose value is 0.2; the same holds across."""
    curve = Curve(label="", x=[0, 1000], y=[0.1, 0.2], colour="red")
    for log in (False, True):
        drawing = svg([curve], name="one", log=log)
        (x0, y0), (x1, y1) = _drawn_points(drawing, "red")
        places = {text.text: (float(text.get("x")), float(text.get("y")))
                  for text in ET.fromstring(drawing).iter("text")}
        low, high = ("0.1", "0.2") if log else ("0.10", "0.20")
        assert places[low][1] - places[high][1] == pytest.approx(y0 - y1, abs=0.2)
        assert places[low][1] - y0 == pytest.approx(3.5, abs=0.2)      # down to the base line of the letters
        assert (places["0"][0], places["1k"][0]) == (x0, x1)


def test_a_long_curve_is_thinned_by_means():
    curve = Curve(label="", x=range(10_000), y=[float(k % 2) for k in range(10_000)], colour="red")
    x, y = zip(*_thinned(curve, positive=False), strict=True)
    assert len(x) == len(y) == POINTS
    assert y == pytest.approx([0.5] * POINTS, abs=0.02)
    assert list(x) == sorted(x)
    assert sum(x) / POINTS == pytest.approx(4999.5, rel=1e-3)


def test_a_plot_takes_the_colours_of_its_page_and_leaves_its_letters_alone():
    curves = [Curve(label=label, x=[0, 5], y=[0.05, 0.02], colour="blue") for label in ("training", "held out")]
    drawing = svg(curves, name="Noise loss", log=True)
    page = Page(drawing)
    assert not re.search(r"#[0-9a-f]{6}[;\"]", drawing)
    assert "<style" not in drawing
    assert "font-family" not in drawing
    assert {"step", "training", "held out", "0.05", "0.02"} <= set(_texts(drawing))
    assert drawing == svg(curves, name="Noise loss", log=True)
    assert len(drawing) < 20_000
    names = {name for _, name, _ in page.attributes}
    assert names == {"viewbox", "role", "aria-label", "style", "d", "x", "y", "text-anchor", "data-x", "data-label",
                     "data-axes"}
    assert "id" not in names                                           # so two plots in one page cannot clash


def test_labels_are_text_whatever_they_hold():
    drawing = svg([Curve(label=f"<b>&{k}", x=[1, 2], y=[1, 2], colour="red") for k in range(2)], name='"<i>')
    assert ET.fromstring(drawing).get("aria-label") == '"<i>'
    assert {"<b>&0", "<b>&1"} <= set(_texts(drawing))


def test_points_are_marked_only_where_it_was_asked():
    plain, dotted = (svg([Curve(label="", x=[1, 2, 3], y=[1, 2, 3], colour="red", dots=dots)], name="one")
                     for dots in (False, True))
    assert plain.count("stroke: red") == 1
    assert dotted.count("stroke: red") == 2
    assert "stroke-linecap: round" in dotted


# ── Ticks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("low", "high", "whole", "texts"), [
    (0, 8, True, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]), (0.9, 2.1, True, ["1", "2"]),
    (7.95, 8.05, True, ["8"]), (-400, 60_400, True, ["0", "10k", "20k", "30k", "40k", "50k", "60k"]),
    (0, 12_000_000, True, ["0", "2M", "4M", "6M", "8M", "10M", "12M"]),
    (0, 20, True, ["0", "3", "6", "9", "12", "15", "18"]),
    (-1, 1, False, ["−1.00", "−0.75", "−0.50", "−0.25", "0.00", "0.25", "0.50", "0.75", "1.00"]),
    (-0.00001, 0.00031, False, ["0.00000", "0.00005", "0.00010", "0.00015", "0.00020", "0.00025", "0.00030"]),
    (0, 4e-10, False, ["0", "5e−11", "1e−10", "1.5e−10", "2e−10", "2.5e−10", "3e−10", "3.5e−10", "4e−10"])])
def test_linear_ticks_are_round_numbers(low, high, whole, texts):
    ticks = _linear_ticks(low, high, whole=whole)
    assert [text for _, text in ticks] == texts
    assert all(low <= value <= high for value, _ in ticks)


@pytest.mark.parametrize(("low", "high", "texts"), [
    (0.02, 0.6, ["0.02", "0.05", "0.1", "0.2", "0.5"]), (1e-5, 1, ["1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]),
    (1e-20, 1, ["1e-18", "1e-15", "1e-12", "1e-09", "1e-06", "0.001", "1"]),
    (0.31, 0.34, ["0.310", "0.315", "0.320", "0.325", "0.330", "0.335", "0.340"])])
def test_logarithmic_ticks_are_powers_of_ten_and_simple_multiples(low, high, texts):
    assert [text for _, text in _log_ticks(math.log10(low) - 1e-9, math.log10(high) + 1e-9)] == texts


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, 5e-324, -1e300, 1e300])


@settings(deadline=None)
@given(y=st.lists(NUMBERS.filter(lambda y: not 1e300 < abs(y) < math.inf), max_size=9), log=st.booleans(),
       curves=st.integers(1, 5), step=st.integers(1, 10**9), x_label=st.sampled_from(["step", "log-SNR"]))
def test_any_numbers_make_a_chart_within_its_bounds(y, log, curves, step, x_label):
    x = range(step, step + len(y))
    curve = Curve(label="a curve", x=x, y=y, colour="red", dots=True)
    chart = ET.fromstring(svg([curve] * curves, name="any", log=log, x_label=x_label))
    for path in chart.iter("path"):
        for x_place, y_place in re.findall(r"[ML] (\S+) (\S+)", path.get("d")):
            assert 0 <= float(x_place) <= WIDTH
            assert 0 <= float(y_place) <= HEIGHT
