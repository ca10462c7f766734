"""Network shapes: a preset and a resolution → the config of a network.

Most of the compute goes into the levels with 16×16 and 8×8 pixels. The highest levels are narrow and shallow, because a
convolution there costs most and holds the fewest parameters.
"""

import dataclasses
import math
from dataclasses import dataclass

from ..checks import check_choice
from ..config import PRESETS
from ..errors import UsageError
from ..model_config import RESOLUTION_RANGE, NetworkConfig, TextConfig

LOWEST_SIZE = 8                 # pixels along a side to which the lowest map comes nearest; 6 to 11 where possible
ATTENTION_MAX_SIZE = 22         # largest side in pixels of a map with attention, so that the two lowest levels have it;
#                                 at 32×32 pixels it would slow the whole network by 62 %


@dataclass(frozen=True)
class Levels:
    """A preset's network for one number of levels; the tuples begin with the highest resolution."""

    widths: tuple[int, ...]                     # channels of each level
    depths: tuple[int, ...]                     # number of residual blocks in each level
    head_dim: int                               # features of an attention head
    groups: int                                 # of group normalisation
    time_width: int                             # width of the embedding of time and text
    depth: int                                  # the same for all levels, in unconditional networks


# By the number of levels: 3 are for 32 px, 4 for 64 px, 5 for 128 px. The shapes were chosen by counting operations and
# parameters, not by training.
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

# (width, layers) of the text encoder, at every resolution.
TEXT = {"nano": (64, 2), "micro": (128, 3), "small": (256, 4), "base": (384, 6), "large": (512, 8)}


def network_config(preset: str, resolution: int, *, vocabulary: int | None, learned_variance: bool) -> NetworkConfig:
    """The network of a preset for pictures with `resolution` pixels along a side, a multiple of 8 in [8, 512].

    vocabulary: number of tokens; None makes an unconditional network. Raises UsageError for an unknown preset, or for a
    resolution that is not such a multiple.
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
    """Pixels along a side at every level, the highest first.

    They are halved until the lowest is nearest to 8, but at least once, and never to a fraction.
    """
    halvings = max(1, round(math.log2(resolution / LOWEST_SIZE)))
    while resolution % 2**halvings:
        halvings -= 1
    return [resolution >> level for level in range(halvings + 1)]


def fit_levels(rows: dict[int, Levels], count: int) -> Levels:
    """The entry of `rows`, a preset's part of `LEVELS`, for `count` levels.

    For fewer levels than any entry has, the highest levels of the smallest entry are left out. For more, levels are
    added on top of the largest: each has half the width of the one below it, if the groups allow that, and one block.
    """
    row = rows[min(max(count, min(rows)), max(rows))]
    widths, depths = list(row.widths[-count:]), list(row.depths[-count:])
    while len(widths) < count:
        half = widths[0] // 2
        widths.insert(0, half if half and half % row.groups == 0 else widths[0])
        depths.insert(0, 1)
    return dataclasses.replace(row, widths=tuple(widths), depths=tuple(depths))
