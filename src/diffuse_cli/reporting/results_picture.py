"""Builds results.png, the curves of a run in one picture, for chats and slides where a page does not fit."""

from pathlib import Path

from ..files import durable
from ..storage import registry
from ..storage.event_log import read_event_log
from .report import curve_charts
from .svg_curves import svg

COLOURS = {"--curve-1": "#0b63b6", "--curve-2": "#d1610b"}             # as in page.html, on a light page


def write(directory: Path) -> None:
    """Write the picture beside the report of the run in `directory`, if there are curves. Raises StorageError."""
    if picture := build(directory):
        durable.write(directory / registry.RESULTS_FILE, picture)


def build(directory: Path) -> bytes:
    """The bytes of a PNG with the charts of the report; empty if no curve of the run has a number yet."""
    import numpy as np

    from ..pictures import image_files, sheets
    from ..pictures.line_charts import draw_chart

    charts = [draw_chart(svg(chart.known, name="", x_label=chart.x_label, log=chart.log), chart.title, COLOURS)
              for chart in curve_charts(read_event_log(directory)) if chart.known]
    return image_files.encode(sheets.tile(np.stack(charts), columns=2, gap=8)) if charts else b""
