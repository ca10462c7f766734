"""Network shapes: a preset and a resolution → the config of a network.

Most of the compute goes into the levels with 16×16 and 8×8 pixels. The highest levels are narrow and shallow, because a
convolution there costs most and holds the fewest parameters.
"""

import dataclasses
import math
from dataclasses import dataclass

from ..checks import check_choice, check_size
from ..config import PRESETS
from ..model_config import MAX_VOCABULARY, SIDE_MULTIPLE, UPSCALER_SIDE, NetworkConfig, TextConfig, Upscaling
from ..picture_size import Size

LOWEST_SIZE = 8                 # pixels to which the shorter side of the lowest map comes nearest; 6 to 11 if possible
ATTENTION_MAX_SIZE = 22         # √pixels of the largest map with attention, so that the two lowest levels have it;
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
    "huge": {
        3: Levels((320, 640, 1344), (3, 4, 5), 64, 32, 1024, 5),
        4: Levels((192, 384, 832, 1280), (1, 2, 4, 5), 64, 32, 1024, 4),
        5: Levels((64, 192, 384, 832, 1280), (1, 2, 3, 4, 5), 64, 32, 1024, 4),
    },
}

# (width, layers) of the text encoder, at every resolution.
TEXT = {"nano": (64, 2), "micro": (128, 3), "small": (256, 4), "base": (384, 6), "large": (512, 8), "huge": (768, 12)}


def network_config(
    preset: str, resolution: Size | int, *, vocabulary: int | None, learned_variance: bool,
) -> NetworkConfig:
    """The network of a preset for pictures of the size `resolution`, whose sides are multiples of 8.

    resolution: an int is the side of a square. vocabulary: number of tokens; None makes an unconditional network.
    Raises UsageError for an unknown preset, or for a size that is not possible.
    """
    check_choice("--preset", preset, PRESETS)
    resolution = Size.of(resolution)
    check_size("--resolution", resolution, multiple=SIDE_MULTIPLE)

    sizes = map_sizes(resolution)
    levels = fit_levels(LEVELS[preset], len(sizes))
    conditional = vocabulary is not None
    text_width, text_layers = TEXT[preset]
    return NetworkConfig(
        resolution=resolution,
        widths=levels.widths,
        depths=levels.depths if conditional else (levels.depth,) * len(sizes),
        attention=tuple("full" if size.side <= ATTENTION_MAX_SIZE or size == sizes[-1] else "none" for size in sizes),
        head_dim=levels.head_dim,
        groups=levels.groups,
        time_width=levels.time_width if conditional else 4 * levels.widths[0],
        text=None if vocabulary is None else TextConfig(vocabulary=vocabulary, width=text_width, layers=text_layers),
        out_channels=6 if learned_variance else 3,
    )


def have_same_shape(preset: str, one: Size | int, other: Size | int) -> bool:
    """Whether the networks of a preset for these two sizes of pictures have the same layers, so that weights fit both.

    Raises UsageError for a size that is not possible.
    """
    shapes = [network_config(preset, size, vocabulary=MAX_VOCABULARY, learned_variance=True) for size in (one, other)]
    return dataclasses.replace(shapes[0], resolution=shapes[1].resolution) == shapes[1]


def upscaler_config(
    preset: str, crop: Size, upscaling: Upscaling, *, text: TextConfig | None, learned_variance: bool,
) -> NetworkConfig:
    """The network of a preset for an upscaler that is trained on crops of that size.

    It has the levels of a network for pictures of 64 px, or of those of smaller crops, so that crops can have any size.

    text: the shape of its text encoder, that of the first model; None makes an unconditional network. Pixels attend to
    the text alone, at the lowest level: so the cost grows as the number of pixels, and a picture larger than a crop
    looks to each pixel as a crop does. Raises UsageError for an unknown preset, or for a size that is not possible.
    """
    levels_of = crop if min(crop) < UPSCALER_SIDE else Size.of(UPSCALER_SIDE)
    network = network_config(preset, levels_of, vocabulary=None if text is None else text.vocabulary,
                             learned_variance=learned_variance)
    lowest = "none" if text is None else "text"
    return dataclasses.replace(network, resolution=crop, text=text, upscaling=upscaling,
                               attention=(*("none" for _ in network.attention[1:]), lowest))


def map_sizes(resolution: Size) -> list[Size]:
    """The size of the maps at every level, the highest first.

    They are halved until the shorter side of the lowest is nearest to 8, but at least once, and never to a fraction.
    """
    halvings = max(1, round(math.log2(min(resolution) / LOWEST_SIZE)))
    while any(side % 2**halvings for side in resolution):
        halvings -= 1
    return [Size(resolution.width >> level, resolution.height >> level) for level in range(halvings + 1)]


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
