"""Keeps the page of a run, report.html, up to date during training, in a small share of the time."""

import time
from collections.abc import Iterator
from pathlib import Path

from .. import events
from ..files import durable
from ..storage import registry

FIRST_COST = 0.5                                # seconds that the first page is assumed to take
MAX_COST = 0.01                                 # largest share of the training that pages may take, but for the last


class LivePage:
    """Decides when the page of the run in `directory` is written again, and writes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.begun, self.seconds = time.monotonic(), FIRST_COST        # spent on pages, the next one included
        self.has_news, self.has_complained = False, False

    def is_due(self, event: events.Event) -> bool:
        """At the end always; else at the first report of steps after a validation, a preview or a save."""
        self.has_news |= isinstance(event, events.Validated | events.Previewed | events.Saved)
        cheap = self.seconds <= MAX_COST * (time.monotonic() - self.begun)
        return isinstance(event, events.Finished) or (isinstance(event, events.Stepped) and self.has_news and cheap)

    def write(self) -> Iterator[events.Event]:
        """Write the page. An error is told once, as a warning: a page is not worth a training."""
        from . import report  # matplotlib takes a while to import

        begun = time.monotonic()
        try:
            durable.write(self.directory / registry.REPORT_FILE, report.build(self.directory))
        except Exception as error:
            if not self.has_complained:
                yield events.Noticed(message=f"the report could not be written: {error}", level="warning")
            self.has_complained = True
        self.has_news, self.seconds = False, self.seconds + time.monotonic() - begun
