"""A strip of previews drawn in a terminal, each picture over its prompt, as many as there is room for.

Knows the pictures and the room, not the training. What it needs to decode them is there when it trains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from ... import events
from . import view

if TYPE_CHECKING:
    import numpy as np

LEAST, MOST = 16, 32                            # columns of a picture


@dataclass
class Strip:
    """The pictures of one preview, (N, H, H, 3) uint8, with their prompts."""

    step: int
    pictures: "np.ndarray"
    prompts: Sequence[str]
    _made: dict[tuple[int, int], list[RenderableType]] = field(default_factory=dict)       # drawn once, shown often

    @classmethod
    def read(cls, event: events.Previewed) -> "Strip | None":
        """The strip of a preview; None where its file cannot be read: it is only to look at."""

        from ...pictures import sheets

        try:
            return cls(event.step, sheets.read_strip(Path(event.path)), event.prompts)
        except (OSError, ValueError):
            return None

    def drawn(self, *, room: tuple[int, int], taken: int) -> list[RenderableType]:
        """Pictures and prompts for a terminal of `room` (columns, lines), `taken` of which are used; or nothing."""
        columns, lines = room
        count = len(self.pictures)
        side = min(self.pictures.shape[1], MOST, max(LEAST, columns // count - 1)) // 2 * 2
        shown = min(count, (columns + 1) // (side + 1))
        if shown < 1 or taken + side // 2 + 2 > lines:
            return []
        if (shown, side) not in self._made:
            self._made[shown, side] = self._draw(shown, side)
        return self._made[shown, side]

    def _draw(self, shown: int, side: int) -> list[RenderableType]:

        from ...pictures import pixels

        small = [pixels.shrunk(picture, side) for picture in self.pictures[:shown]]
        labels = Text(no_wrap=True)
        for prompt in self.prompts[:shown]:
            label = Text(view.clean(prompt), style="dim")
            label.truncate(side, overflow="ellipsis", pad=True)
            labels.append_text(label).append(" ")
        labels.right_crop()
        return [view.half_blocks(small), labels]
