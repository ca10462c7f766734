"""The newest preview of a training in the live display: each picture over its prompt, as many as there is room for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from ... import events
from .half_blocks import half_blocks
from .plain_text import clean

if TYPE_CHECKING:
    import numpy as np

MIN_SIDE, MAX_SIDE = 16, 32                     # columns of a picture


@dataclass
class Strip:
    """The pictures of one preview, (N, H, H, 3) uint8, with their prompts."""

    step: int
    pictures: "np.ndarray"
    prompts: Sequence[str]
    _rendered: dict[tuple[int, int], list[RenderableType]] = field(default_factory=dict)   # (pictures, side) → lines

    @classmethod
    def read(cls, event: events.Previewed) -> "Strip | None":
        """The strip of a preview; None if its file cannot be read, which must not end a training."""
        from ...pictures import sheets

        try:
            return cls(event.step, sheets.read_strip(Path(event.path)), event.prompts)
        except (OSError, ValueError):
            return None

    def render(self, *, room: tuple[int, int], used_lines: int) -> list[RenderableType]:
        """Pictures and prompts for a terminal of `room` (columns, lines); nothing if they do not fit."""
        columns, lines = room
        count = len(self.pictures)
        side = min(self.pictures.shape[1], MAX_SIDE, max(MIN_SIDE, columns // count - 1)) // 2 * 2
        shown = min(count, (columns + 1) // (side + 1))
        if shown < 1 or used_lines + side // 2 + 2 > lines:
            return []
        if (shown, side) not in self._rendered:                        # rendered once, shown four times a second
            self._rendered[shown, side] = self._render(shown, side)
        return self._rendered[shown, side]

    def _render(self, shown: int, side: int) -> list[RenderableType]:
        from ...pictures import pixels

        small = [pixels.shrink(picture, side) for picture in self.pictures[:shown]]
        labels = Text(no_wrap=True)
        for prompt in self.prompts[:shown]:
            label = Text(clean(prompt), style="dim")
            label.truncate(side, overflow="ellipsis", pad=True)
            labels.append_text(label).append(" ")
        labels.right_crop()
        return [half_blocks(small), labels]
