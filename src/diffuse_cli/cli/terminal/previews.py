"""The newest preview of a training in the live display: each picture over its prompt, and every prompt if it fits."""

import math
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

MIN_SIDE, SMALLEST_SIDE, MAX_SIDE = 16, 10, 32  # of the longer side of a picture, in columns or half lines; the
#                                                 smallest only where prompts need it


@dataclass
class Strip:
    """The pictures of one preview, (N, H, W, 3) uint8, with their prompts."""

    step: int
    pictures: "np.ndarray"
    prompts: Sequence[str]
    _rendered: dict[tuple[int, int, int], list[RenderableType]] = field(default_factory=dict)    # by layout

    @classmethod
    def read(cls, event: events.Previewed) -> "Strip | None":
        """The strip of a preview; None if its file cannot be read, which must not end a training."""
        from ...pictures import sheets

        try:
            return cls(event.step, sheets.read_strip(Path(event.path)), event.prompts)
        except (OSError, ValueError):
            return None

    def render(self, columns: int, lines: int, *, max_rows: int = 100) -> list[RenderableType]:
        """Pictures and prompts in so many columns and lines of the terminal; nothing if they do not fit."""
        layout = self._layout(columns, lines, max_rows)
        if layout is None:
            return []
        if layout not in self._rendered:                               # rendered once, shown four times a second
            self._rendered[layout] = self._render(*layout)
        return self._rendered[layout]

    def _layout(self, columns: int, lines: int, max_rows: int) -> tuple[int, int, int] | None:
        """(pictures in a row, rows, longer side) with the largest pictures that leave room for all pictures.

        If not all of them fit, there is room for every prompt; if not even that, for as many as possible.
        """
        most = min(max(self.pictures.shape[1:3]), MAX_SIDE) // 2 * 2
        sizes = {side: self._size(side) for side in range(most, min(most, SMALLEST_SIDE) - 1, -2)}
        layouts = [((columns + 1) // (width + 1), min(max_rows, lines // (height // 2 + 1)), side)
                   for side, (width, height) in sizes.items()]
        layouts = [layout for layout in layouts if min(layout[:2]) > 0]
        large = [layout for layout in layouts if layout[2] >= min(most, MIN_SIDE)]
        for candidates, wanted in ((large, len(self.pictures)), (layouts, len(set(self.prompts)))):
            for in_a_row, rows, side in candidates:
                if in_a_row * rows >= wanted:
                    return in_a_row, rows, side
        return large[-1] if large else None

    def _size(self, side: int) -> tuple[int, int]:
        """Width and height of a picture whose longer side is `side`. The height is even."""
        height, width = self.pictures.shape[1:3]
        longer = max(width, height)
        return max(1, round(side * width / longer)), 2 * max(1, round(side * height / longer / 2))

    def _render(self, in_a_row: int, rows: int, side: int) -> list[RenderableType]:
        from ...pictures import pixels

        shown, (width, height) = self._chosen(in_a_row * rows), self._size(side)
        in_a_row = math.ceil(len(shown) / math.ceil(len(shown) / in_a_row))            # rows of nearly equal length
        lines: list[RenderableType] = []
        for start in range(0, len(shown), in_a_row):
            row = shown[start : start + in_a_row]
            labels = Text(no_wrap=True)
            for index in row:
                label = Text(clean(self.prompts[index]), style="dim")
                label.truncate(width, overflow="ellipsis", pad=True)
                labels.append_text(label).append(" ")
            labels.right_crop()
            lines += [half_blocks([pixels.shrink(self.pictures[index], width, height) for index in row]), labels]
        return lines

    def _chosen(self, count: int) -> list[int]:
        """The numbers of at most `count` pictures: the first of every prompt, then the second of every prompt, …"""
        seen: dict[str, int] = {}
        rounds = []
        for index, prompt in enumerate(self.prompts[: len(self.pictures)]):
            seen[prompt] = seen.get(prompt, 0) + 1
            rounds.append((seen[prompt], index))
        return sorted(index for _, index in sorted(rounds)[:count])
