"""One dial for size: a preset and a resolution → the shape of a network.

Compute is concentrated where maps have 16×16 and
8×8 pixels; the highest levels are narrow and shallow, since a convolution there costs most and holds least.
"""

import dataclasses
import math
from dataclasses import dataclass

from ..checks import check_choice
from ..config import PRESETS, RESOLUTION_RANGE, NetworkConfig, TextConfig
from ..errors import UsageError

LOWEST_SIZE = 8                 # pixels on a side of the lowest map: the nearest to it, so 6 to 11 where possible
ATTENTION_MAX_SIZE = 22         # the two lowest then attend; at 32×32 it would slow the whole network by 62 %


@dataclass(frozen=True)
class Levels:
    """What a preset says of the levels, highest first. `depth` is for unconditional networks: one for all levels."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    head_dim: int
    groups: int
    time_width: int
    depth: int


# By the number of levels: 3 serve 32 px, 4 serve 64 px, 5 serve 128 px. Sized by counting, not by training.
LEVELS: dict[str, dict[int, Levels]] = {
    "nano": {
        3: Levels((32, 48, 64), (1, 1, 1), 16, 16, 128, 1),
        4: Levels((16, 32, 48, 64), (1, 1, 1, 1), 16, 16, 128, 1),
        5: Levels((16, 32, 32, 48, 64), (1, 1, 1, 1, 1), 16, 16, 128, 1),
    },
    "micro": {
        3: Levels((32, 64, 128), (2, 2, 2), 32, 32, 128, 2),
        4: Levels((32, 64, 96, 128), (1, 1, 1, 1), 32, 32, 128, 1),
        5: Levels((16, 32, 64, 96, 128), (1, 1, 1, 1, 1), 32, 16, 256, 1),
    },
    "small": {
        3: Levels((64, 128, 256), (2, 2, 2), 64, 32, 256, 2),
        4: Levels((32, 64, 128, 256), (2, 2, 2, 2), 32, 32, 256, 2),
        5: Levels((32, 64, 128, 192, 256), (1, 1, 1, 1, 1), 64, 32, 256, 1),
    },
    "base": {
        3: Levels((128, 256, 384), (1, 2, 3), 64, 32, 512, 3),
        4: Levels((64, 128, 256, 384), (1, 2, 3, 3), 64, 32, 256, 3),
        5: Levels((32, 64, 128, 256, 384), (1, 1, 2, 2, 3), 64, 32, 384, 3),
    },
    "large": {
        3: Levels((192, 384, 768), (2, 3, 4), 64, 32, 768, 4),
        4: Levels((128, 256, 512, 768), (1, 2, 3, 4), 64, 32, 512, 3),
        5: Levels((64, 128, 256, 512, 768), (1, 2, 3, 3, 4), 64, 32, 512, 3),
    },
}

# Width and layers of the text encoder, whatever the resolution.
TEXT = {"nano": (64, 2), "micro": (128, 3), "small": (256, 4), "base": (384, 6), "large": (512, 8)}


def network_config(preset: str, resolution: int, *, vocabulary: int | None, learned_variance: bool) -> NetworkConfig:
    """The network of a preset for pictures of `resolution` pixels, a multiple of 8 in [8, 512].

    `vocabulary` is the number of tokens; None makes an unconditional network. Raises UsageError.
    """
    check_choice("--preset", preset, PRESETS)
    low, high = RESOLUTION_RANGE
    if resolution % 8 or not low <= resolution <= high:
        raise UsageError(f"--resolution must be a multiple of 8 between {low} and {high}, not {resolution}")

    sizes = map_sizes(resolution)
    levels = fit_levels(LEVELS[preset], len(sizes))
    conditional = vocabulary is not None
    text_width, text_layers = TEXT[preset]
    return NetworkConfig(
        resolution=resolution,
        widths=levels.widths,
        depths=levels.depths if conditional else (levels.depth,) * len(sizes),
        attention=tuple("full" if size <= ATTENTION_MAX_SIZE or size == sizes[-1] else "none" for size in sizes),
        head_dim=levels.head_dim,
        groups=levels.groups,
        time_width=levels.time_width if conditional else 4 * levels.widths[0],
        text=None if vocabulary is None else TextConfig(vocabulary=vocabulary, width=text_width, layers=text_layers),
        out_channels=6 if learned_variance else 3,
    )


def map_sizes(resolution: int) -> list[int]:
    """Pixels on a side at every level: halved until nearest to 8, once at least, for as long as it stays whole."""
    halvings = max(1, round(math.log2(resolution / LOWEST_SIZE)))
    while resolution % 2**halvings:
        halvings -= 1
    return [resolution >> level for level in range(halvings + 1)]


def fit_levels(rows: dict[int, Levels], count: int) -> Levels:
    """The row of `rows` for `count` levels; the smallest without its highest levels, or the largest with more of them.

    An added level is half as wide as the one below it, as far as the groups allow, and has one block.
    """
    row = rows[min(max(count, min(rows)), max(rows))]
    widths, depths = list(row.widths[-count:]), list(row.depths[-count:])
    while len(widths) < count:
        half = widths[0] // 2
        widths.insert(0, half if half and half % row.groups == 0 else widths[0])
        depths.insert(0, 1)
    return dataclasses.replace(row, widths=tuple(widths), depths=tuple(depths))
