"""Keeps the page of a run, report.html, up to date during training, in a small share of the time.

At the end of the training, results.png is written beside it.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from .. import events
from ..files import durable
from ..storage import registry
from . import report, results_picture

FIRST_COST = 0.5                                # seconds that writing the first page is assumed to take
MAX_COST = 0.01                                 # largest share of the training time for all pages but the last


class LivePage:
    """Decides when the page of the run in `directory` is written again, and writes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started, self.seconds = time.monotonic(), FIRST_COST      # seconds spent on pages, the next one included
        self.has_news, self.has_warned, self.is_complete = False, False, False

    def is_due(self, event: events.Event) -> bool:
        """Whether to write the page after this event.

        Always at the end of the training; before that at the first report of steps after a validation, a preview or a
        save, if the pages so far took little enough time.
        """
        self.has_news |= isinstance(event, events.Validated | events.Previewed | events.Saved)
        self.is_complete = isinstance(event, events.Finished) and event.complete
        is_cheap = self.seconds <= MAX_COST * (time.monotonic() - self.started)
        return isinstance(event, events.Finished) or (isinstance(event, events.Stepped) and self.has_news and is_cheap)

    def write(self) -> Iterator[events.Event]:
        """Write the page, and at the end results.png.

        An error does not end the training: the first one is yielded as a warning.
        """
        started = time.monotonic()
        try:
            durable.write(self.directory / registry.REPORT_FILE, report.build(self.directory))
            if self.is_complete:
                results_picture.write(self.directory)
        except Exception as error:
            if not self.has_warned:
                yield events.Noticed(message=f"the report could not be written: {error}", level="warning")
            self.has_warned = True
        self.has_news, self.seconds = False, self.seconds + time.monotonic() - started
