"""The report of a run in training, written anew now and then."""

import time
from collections.abc import Iterator
from pathlib import Path

from .. import events
from ..files import durable
from ..storage import registry

REPORT_SECONDS = 0.5                            # that writing a report is taken to cost before the first was written
MAX_REPORT_COST = 0.01                          # share of the run that reports may take, the last one apart


class Page:
    """The run's report, written anew when there is something to see, in no more than a small share of the time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.begun, self.seconds = time.monotonic(), REPORT_SECONDS
        self.news, self.complained = False, False

    def is_due(self, event: events.Event) -> bool:
        """Always at the end; else with the first report of steps after something was validated, drawn or saved."""
        self.news |= isinstance(event, events.Validated | events.Previewed | events.Saved)
        cheap = self.seconds <= MAX_REPORT_COST * (time.monotonic() - self.begun)
        return isinstance(event, events.Finished) or (isinstance(event, events.Stepped) and self.news and cheap)

    def write(self) -> Iterator[events.Event]:
        from ..reporting import report  # matplotlib takes its time to be there

        begun = time.monotonic()
        try:
            durable.write(self.directory / registry.REPORT_FILE, report.build(self.directory))
        except Exception as error:                                     # whatever it is, it is not worth a training
            if not self.complained:
                yield events.Noticed(message=f"the report could not be written: {error}", level="warning")
            self.complained = True
        self.news, self.seconds = False, self.seconds + time.monotonic() - begun
