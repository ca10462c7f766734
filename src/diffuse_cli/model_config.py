"""What a model is: the shape of its network, its noise schedule, and what a distilled one was taught.

It is saved in the model's file and read back strictly: unknown keys, wrong types and impossible values are refused.
Uses the standard library only: it is imported before torch.
"""

import math
from dataclasses import dataclass, replace

from .checks import MAX_SIDE, check_choice, check_range, check_size
from .errors import UsageError
from .picture_size import Size

SCHEDULES = ("interpolated", "cosine", "linear", "sigmoid")
PREDICTIONS = ("v", "epsilon", "x0")
ATTENTIONS = ("none", "text", "full")
CHANNELS = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGBA"}      # number of channels of a picture → what they are
FACTORS = (2, 4)                                # by which an upscaler enlarges the sides of a picture
SIDE_MULTIPLE = 8                               # sides of the pictures of a new model are multiples of it
MAX_SIZES = 16                                  # of the pictures of one model
MAX_VOCABULARY = 65_536                         # tokens of a text encoder
GUIDANCE_RANGE = (0, 100)
EVALUATIONS, EVALUATIONS_RANGE = 4, (1, 8)      # of distilled models: the default, and what is possible
UPSCALER_SIDE = 64                              # pixels; of the squares for which an upscaler's noise levels are made
UPSCALER_EVALUATIONS = 2                        # the default of distilled upscalers, whose teachers need 6


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Shape of the T5-shaped text encoder: `vocabulary` tokens, `width` features, `layers` blocks."""

    vocabulary: int
    width: int
    layers: int

    def __post_init__(self) -> None:
        check_range("text.vocabulary", self.vocabulary, 259, MAX_VOCABULARY)
        check_range("text.width", self.width, 16, 4_096)
        check_range("text.layers", self.layers, 1, 64)
        if self.width % self.heads:
            raise UsageError(f"text.width {self.width} is not a multiple of its {self.heads} heads")

    @property
    def heads(self) -> int:
        return max(1, self.width // 64)

    @property
    def feed_forward(self) -> int:
        """8/3 of the width, rounded up to a multiple of 32."""
        return math.ceil(self.width * 8 / 3 / 32) * 32


@dataclass(frozen=True, kw_only=True)
class Upscaling:
    """What an upscaler enlarges: the pictures of a first model, to `factor` times their width and height."""

    factor: int
    small: Size                                 # of the first model's pictures, the commonest size if it has several

    def __post_init__(self) -> None:
        object.__setattr__(self, "small", Size.of(self.small))
        if self.factor not in FACTORS:
            raise UsageError(f"--factor must be {' or '.join(map(str, FACTORS))}, not {self.factor}")
        check_size("upscaling.small", self.small)
        if self.large.pixels > MAX_SIDE**2:
            raise UsageError(f"pictures of {self.small} px enlarged {self.factor} times would have {self.large} px",
                             hint=f"An upscaler draws at most {MAX_SIDE**2:,} pixels: use a smaller --factor")

    @property
    def large(self) -> Size:
        """The size to which a picture of the size `small` is enlarged."""
        return self.small.scaled(self.factor)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Shape of the U-Net, and of its pictures. Lists go from the highest resolution to the lowest.

    `text=None` makes an unconditional network. `channels` of a picture are 1 for grey or 3 for red, green and blue, and
    one more for alpha, the last. `out_channels` are twice as many when the variance is learned. An upscaler also reads
    a small picture, enlarged and noisy, as further input channels. Its `resolution` is the size of the crops on which
    it is trained, and its `channels` are 3.
    """

    resolution: Size                            # an int is the side of a square; the first of several sizes
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    attention: tuple[str, ...]
    head_dim: int
    groups: int
    time_width: int
    text: TextConfig | None
    channels: int = 3
    out_channels: int = 6
    buckets: tuple[Size, ...] = ()              # all sizes, the commonest first, if the pictures have several
    upscaling: Upscaling | None = None          # None: the network reads a noisy picture alone

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolution", Size.of(self.resolution))
        check_range("number of network.buckets", len(self.buckets), 0, MAX_SIZES)
        for size in self.sizes:
            check_size("network.resolution", size)
        if self.buckets and self.upscaling is not None:
            raise UsageError("an upscaler is trained on crops of one size, and has no network.buckets")
        if self.buckets and (self.buckets[0] != self.resolution or len(set(self.buckets)) != len(self.buckets)):
            raise UsageError("network.buckets must be different sizes, of which network.resolution is the first")
        check_range("number of levels", len(self.widths), 1, 8)
        check_range("network.head_dim", self.head_dim, 1, 512)
        check_range("network.groups", self.groups, 1, 512)
        if not len(self.widths) == len(self.depths) == len(self.attention):
            raise UsageError("network.widths, depths and attention must have one entry for each level")
        for size in self.sizes:
            if any(side % self.side_multiple for side in size):
                raise UsageError(f"--resolution {size} cannot be halved {len(self.widths) - 1} times")
        if self.widths[0] % 2:
            raise UsageError(f"the first of network.widths must be even, for sines and cosines, not {self.widths[0]}")
        lowest = self.middle_attention if self.attention[-1] == "none" else self.attention[-1]
        for level, (width, kind) in enumerate(zip(self.widths, (*self.attention[:-1], lowest), strict=True)):
            check_range("network.widths", width, 8, 4_096)
            if width % self.groups:
                raise UsageError(f"network width {width} is not a multiple of groups {self.groups}")
            if kind != "none" and width % self.head_dim:
                raise UsageError(f"network width {width} is not a multiple of head_dim {self.head_dim}")
            if width == self.groups and (2**level, 2**level) in self.sizes:
                raise UsageError(f"{self.groups} groups of network width {width} normalise single numbers at 1 pixel")
        for depth in self.depths:
            check_range("network.depths", depth, 1, 16)
        for kind in self.attention:
            check_choice("network.attention", kind, ATTENTIONS)
        check_range("network.time_width", self.time_width, 8, 16_384)
        if self.channels not in CHANNELS:
            raise UsageError(f"the model has {self.channels} picture channels; only 1 or 3, grey or RGB, and one more "
                             "for alpha, are supported")
        if self.upscaling is not None and self.channels != 3:
            raise UsageError(f"an upscaler enlarges RGB pictures, not {CHANNELS[self.channels]} ones")
        if self.out_channels not in (self.channels, 2 * self.channels):
            raise UsageError(f"network.out_channels must be {self.channels}, or {2 * self.channels} when the variance "
                             "is learned")
        if self.text is None and "text" in self.attention:
            raise UsageError("an unconditional network has no text to attend to")

    @property
    def schedule_side(self) -> float:
        """Side in pixels of the squares for which the noise levels are made: for all crops of upscalers the same."""
        return self.resolution.side if self.upscaling is None else UPSCALER_SIDE

    @property
    def side_multiple(self) -> int:
        """Each side of a picture is a multiple of it, because the network halves it so often."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel of a picture is its opacity."""
        return self.channels % 2 == 0

    def with_channels(self, channels: int) -> "NetworkConfig":
        """The same network for pictures of so many channels."""
        return replace(self, channels=channels, out_channels=self.out_channels // self.channels * channels)

    @property
    def in_channels(self) -> int:
        """Channels that the network reads: those of the noisy picture, and of an upscaler's small one."""
        return self.channels if self.upscaling is None else 2 * self.channels

    @property
    def middle_attention(self) -> str:
        """What the pixels in the middle of the U-Net attend to. Those of an upscaler never attend to each other."""
        if self.upscaling is None:
            return "full"
        return "none" if self.text is None else "text"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture, of the first size if there are several."""
        return self.shape_of(self.resolution)

    def shape_of(self, size: Size) -> tuple[int, int, int]:
        """(C, H, W) of a picture of that size."""
        return self.channels, size.height, size.width

    @property
    def sizes(self) -> tuple[Size, ...]:
        """All sizes of pictures that the network is trained on, at least one; the first is drawn by default."""
        return self.buckets or (self.resolution,)

    def with_sizes(self, sizes: tuple[Size, ...]) -> "NetworkConfig":
        """The same network for pictures of these sizes, at least one. Raises UsageError if it cannot have them."""
        return replace(self, resolution=sizes[0], buckets=sizes if len(sizes) > 1 else ())

    def checked_size(self, size: Size | None) -> Size:
        """The size of a picture to draw; None is the first. Raises UsageError for one that was not trained on."""
        if self.upscaling is not None:
            if size is not None and any(side % self.side_multiple for side in size):
                raise UsageError(f"an upscaler draws sides that are multiples of {self.side_multiple}, not {size} px")
            return size or self.upscaling.large
        if size is not None and size not in self.sizes:
            raise UsageError(f"this model was not trained on pictures of {size} px",
                             hint=f"It draws {', '.join(map(str, self.sizes))}")
        return size or self.resolution


@dataclass(frozen=True, kw_only=True)
class Student:
    """What a model was distilled to do: to sample in few DDIM steps, each of one evaluation, with guidance built in."""

    evaluations: int                            # the number of steps, whose times are even from `start` to 0
    guidance: float                             # the scale at which its teacher was guided
    teacher: str                                # the name of that model
    start: float = 1.0                          # 1 is noise; an upscaler starts later, from the enlarged small picture

    def __post_init__(self) -> None:
        check_range("--evaluations", self.evaluations, *EVALUATIONS_RANGE)
        check_range("--guidance", self.guidance, *GUIDANCE_RANGE)
        check_range("the length of the teacher's name", len(self.teacher), 0, 200)
        check_range("student.start", self.start, 0.001, 1)

    @property
    def steps(self) -> str:
        """The number of steps in words, such as "1 step"."""
        return "1 step" if self.evaluations == 1 else f"{self.evaluations} steps"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that is needed to build a model and to sample from it. Saved in every model file."""

    network: NetworkConfig
    schedule: str
    prediction: str
    student: Student | None = None              # None: no distilled model

    def __post_init__(self) -> None:
        check_choice("--schedule", self.schedule, SCHEDULES)
        check_choice("--prediction", self.prediction, PREDICTIONS)
        if self.student is not None and self.is_upscaler != (self.student.start < 1):
            raise UsageError("a distilled upscaler starts at a time below 1, and any other student at 1, not "
                             f"{self.student.start:g}")

    @property
    def conditional(self) -> bool:
        return self.network.text is not None

    @property
    def is_upscaler(self) -> bool:
        return self.network.upscaling is not None

    def check_draws_alone(self) -> None:
        """Raise UsageError for an upscaler, which needs a small picture to draw from."""
        if self.is_upscaler:
            raise UsageError("this model is an upscaler: it only enlarges pictures",
                             hint="Use it with `diffuse upscale PICTURE -m MODEL` or `diffuse sample --upscaler MODEL`")

    def checked_upscaling(self) -> Upscaling:
        """What an upscaler enlarges. Raises UsageError for any other model."""
        if self.network.upscaling is None:
            raise UsageError("that model is no upscaler", hint="Leave it out, as one comes with the program, or train "
                             "one: diffuse train ./images --upscaler-for MODEL")
        return self.network.upscaling

    def check_can_be_enlarged(self) -> None:
        """Raise UsageError for a model for whose pictures there are no upscalers."""
        self.check_draws_alone()
        kind = CHANNELS[self.network.channels]
        if kind != "RGB":
            raise UsageError(f"an upscaler enlarges RGB pictures, and this model draws {kind} ones",
                             hint="`diffuse upscale` takes its finished pictures, and makes RGB ones")

    @property
    def learned_variance(self) -> bool:
        return self.network.out_channels == 2 * self.network.channels
