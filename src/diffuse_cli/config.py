"""The configuration: requests of the user (`Recipe`, `Machine`, `Sampling`, `Export`), and what a training is (`Plan`).

Uses the standard library only: it is imported before torch. The defaults of options are written here and nowhere else.
A `Recipe` may leave choices open (None); `training.plan` makes them, and a `Plan` leaves nothing open. The part of a
plan that builds a model is in `model_config`.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checks import check_choice, check_colours, check_range, check_size, parse_interval
from .errors import UsageError
from .model_config import EVALUATIONS_RANGE, GUIDANCE_RANGE, PREDICTIONS, SCHEDULES, SIDE_MULTIPLE, ModelConfig
from .picture_size import Size

FORMAT_VERSION = 1                              # of model files and training states

LOSS_WEIGHTINGS = ("sigmoid", "simple", "min-snr")
VARIANCES = ("learned", "fixed")
VARIANCE_GRADS = ("head", "trunk")
TIMES = ("continuous", "discrete")
OPTIMIZERS = ("muon", "adamw", "adam")
CAPTION_SOURCES = ("auto", "metadata", "sidecar", "embedded", "folder", "filename", "none")
FITS = ("auto", "crop", "pad", "stretch", "buckets")       # how a picture of another shape gets that of the model
# of tables of captions
TABLE_SUFFIXES = (".jsonl", ".jsonlines", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".token")
CLASS_SUFFIXES = (*TABLE_SUFFIXES, ".yaml", ".yml")        # the same, and of lists of the names of classes
PRESETS = ("nano", "micro", "small", "base", "large", "huge")
SAMPLER_STEPS = {                               # sampler → its default number of steps
    "dpmpp-2m": 20, "unipc": 20, "dpmpp-sde": 40, "ddim": 40, "ddpm": 100, "heun": 20, "euler": 40}
SAMPLERS = tuple(SAMPLER_STEPS)
PRECISIONS = ("auto", "bf16", "fp32")           # of a training; the others take no "auto"
DEVICES = ("cpu", "cuda", "mps")                # torch's names of the kinds of device that are supported
LOGS = ("tensorboard", "wandb")
EXPORT_FORMATS = {                              # format → suffix of its file; "" for a folder
    "diffusers": "", "onnx": "", "safetensors": ".safetensors", "web": ".html"}
EXPORT_SCHEDULERS = ("ddpm", "dpmpp-2m", "ddim")
EXPORT_PRECISIONS = ("fp32", "fp16")

SEED_RANGE = (0, 2**63 - 1)
MAX_WORDS = 20_000                              # words of the captions that a model file remembers

VALIDATIONS = 10                                # validations during a training
VALIDATION_LEVELS = 8                           # noise levels at which each validation measures the loss
MIN_VALIDATION_PICTURES = 16                    # held-out pictures in each validation, if there are as many
FACTOR = 4                                      # by which an upscaler enlarges, unless --factor says otherwise
CROP = 128                                      # side of the crops on which an upscaler is trained, in pixels, at most
PREVIEW_PICTURES = 8                            # pictures in one preview
STRENGTH = 0.75                                 # default of --strength; with a mask, the default is 1

RENAMED_FIELDS = {"objective": "loss_weighting"}      # of `Recipe` and `Plan`: name in earlier versions → name


# ── Requests ────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_table(captions: str) -> bool:
    """Whether the value of --captions is the path of a table or of names of classes, and not the name of a source."""
    return captions not in CAPTION_SOURCES and Path(captions).suffix.lower() in CLASS_SUFFIXES


def check_captions(captions: str) -> None:
    """Raise UsageError unless the value of --captions is the name of a source, or `is_table`."""
    if is_table(captions):
        return
    if Path(captions).suffix or Path(captions).name != captions:
        raise UsageError(f"--captions does not read {captions}", hint=(
            f"It takes a table, {' '.join(TABLE_SUFFIXES)}, or one of {', '.join(CAPTION_SOURCES)}; a folder of texts "
            "is given behind that of the pictures, without --captions"))
    check_choice("--captions", captions, CAPTION_SOURCES)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The options that change the trained model. They are saved with the run.

    When the run is resumed, all must be the same, except that the budget (`steps`, `images` or `time`) may grow. An
    option that is None was not given: its value is chosen from the data and the machine, or nothing takes its place.
    """

    resolution: Size | None = None              # an int is the side of a square
    preset: str | None = None
    steps: int | None = None
    images: int | None = None
    time: float | None = None                   # seconds
    batch_size: int | None = None
    lr: float | None = None
    more_folders: tuple[str, ...] = ()          # of pictures, besides the first
    captions: str = "auto"
    caption: str | None = None
    caption_column: str | None = None
    caption_ext: str | None = None
    caption_template: str = "{label}"
    join_lines: bool = False
    shuffle_tags: bool = False
    tag_dropout: float = 0.0
    held_out: str | None = None                 # folder of the pictures that are held out, below the data set's
    background: str = "white"                   # behind transparent pictures: a name, #rrggbb, or "none": they stay
#                                                 transparent
    white_level: float | None = None            # value that is white in pictures of 16 bits or real numbers
    fit: str = "auto"                           # one of FITS; "auto" is chosen from the pictures
    loss_weighting: str = "sigmoid"
    prediction: str = "v"
    schedule: str = "interpolated"
    variance: str = "learned"
    variance_grad: str = "head"
    times: str = "continuous"
    optimizer: str = "muon"
    flip: bool | None = None
    seed: int = 0
    init: str = "auto"                          # a model to start from; "auto": a foundation if one fits; "none"
    evaluations: int | None = None              # distil the model `init` into a student of so many; None: train
    guidance: float | None = None               # at which the teacher of a student is guided
    upscaler_for: str | None = None             # train an upscaler for the pictures of this model; None: no upscaler
    factor: int | None = None                   # by which an upscaler enlarges; None: FACTOR

    def __post_init__(self) -> None:
        if self.resolution is not None:
            object.__setattr__(self, "resolution", Size.of(self.resolution))
            check_size("--resolution", self.resolution, multiple=SIDE_MULTIPLE)
        if self.preset is not None:
            check_choice("--preset", self.preset, PRESETS)
        if sum(budget is not None for budget in (self.steps, self.images, self.time)) > 1:
            raise UsageError("--steps, --images and --time each set the budget", hint="Give only one of them")
        for option, value, low, high in (
            ("--steps", self.steps, 1, 100_000_000), ("--images", self.images, 1, 100_000_000_000),
            ("--time, in seconds,", self.time, 1, 365 * 86_400), ("--batch-size", self.batch_size, 1, 65_536),
            ("--lr", self.lr, 1e-7, 1.0), ("--seed", self.seed, *SEED_RANGE),
            ("--evaluations", self.evaluations, *EVALUATIONS_RANGE), ("--guidance", self.guidance, *GUIDANCE_RANGE),
        ):
            if value is not None:
                check_range(option, value, low, high)
        if self.evaluations is not None and self.init in ("auto", "none"):
            raise UsageError("a student needs the name of its teacher", hint="Give a model as init")
        if self.guidance is not None and self.evaluations is None:
            raise UsageError("guidance is for students; other trainings learn without it",
                             hint="Give evaluations as well, or leave it out")
        if self.upscaler_for is None and self.factor is not None:
            raise UsageError("--factor is for upscalers", hint="Give --upscaler-for MODEL as well, or leave it out")
        if self.upscaler_for is not None and self.evaluations is not None:
            raise UsageError("a distilled upscaler enlarges what its teacher does", hint="Leave upscaler_for out")
        if self.upscaler_for is not None and self.background.strip().lower() == "none":
            raise UsageError("upscalers enlarge no transparency", hint="Leave --background none out")
        check_captions(self.captions)
        check_colours(self.background, self.white_level)
        check_choice("--fit", self.fit, FITS)
        check_choice("--loss-weighting", self.loss_weighting, LOSS_WEIGHTINGS)
        check_choice("--prediction", self.prediction, PREDICTIONS)
        check_choice("--schedule", self.schedule, SCHEDULES)
        check_choice("--variance", self.variance, VARIANCES)
        check_choice("--variance-grad", self.variance_grad, VARIANCE_GRADS)
        if (self.variance, self.variance_grad) == ("fixed", "trunk"):
            raise UsageError("--variance-grad trunk is for a learned variance, and --variance fixed learns none",
                             hint="Leave one of them out")
        check_range("--tag-dropout", self.tag_dropout, 0.0, 0.9)
        check_choice("--times", self.times, TIMES)
        check_choice("--optimizer", self.optimizer, OPTIMIZERS)
        if self.caption is not None and not self.caption.strip():
            raise UsageError("--caption is empty", hint="Write one for all pictures, or use --captions none")
        if self.caption is not None and self.captions != "auto":
            raise UsageError(f"--caption is one for all pictures, and --captions {self.captions} is another choice",
                             hint="Leave one of them out")
        if self.captions == "none" and (self.shuffle_tags or self.tag_dropout):
            raise UsageError("--shuffle-tags and --tag-dropout change captions, and --captions none leaves them out",
                             hint="Leave --captions out, or the others")
        if not any(part in self.caption_template for part in ("{label}", "{folder}", "{name}")):
            raise UsageError("--caption-template must contain {label}, {folder} or {name}",
                             hint='For example: "a photo of a {folder}"')

    @property
    def caption_options(self) -> dict[str, Any]:
        """The options that decide on the captions, as arguments of `find_pictures`."""
        return {name: getattr(self, name) for name in (
            "more_folders", "captions", "caption", "caption_column", "caption_ext", "caption_template", "join_lines")}

    @property
    def tag_options(self) -> str:
        """The options that change tags between commas, as they are typed; "" without any."""
        given = (("--shuffle-tags", self.shuffle_tags), ("--tag-dropout", self.tag_dropout > 0))
        return " or ".join(option for option, is_given in given if is_given)

    @property
    def colour_options(self) -> dict[str, Any]:
        """The options that decide on colours, as arguments of `data.colours.Rendering`."""
        return {"background": self.background, "white_level": self.white_level}

    @property
    def why_as_init(self) -> str:
        """The reason for a choice that is that of the model of `init`."""
        return "that of --init" if self.evaluations is None else "that of its teacher"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The options that change only where and how fast a model is trained. They are no part of its identity."""

    name: str | None = None
    out: str | None = None
    gpus: str | None = None                     # a number or "all"; None: one GPU if there is one, else the CPU
    procs: int | None = None                    # number of processes on the CPU
    device: str | None = None
    precision: str = "auto"
    compile: bool | None = None                 # None: on a GPU if the run is long, and if torch can
    deterministic: bool = False                 # only kernels of torch that always add in the same order
    micro_batch: int | None = None
    shard: bool = False                         # whether each process keeps its share of the weights alone, always
    save_every: str = "5m"
    preview_every: str = "10%"
    preview_prompt: tuple[str, ...] = ()
    log: str | None = None
    strict: bool = False
    accept_changes: bool = False
    fresh: bool = False

    def __post_init__(self) -> None:
        check_choice("--precision", self.precision, PRECISIONS)
        if self.log is not None:
            check_choice("--log", self.log, LOGS)
        if self.micro_batch is not None:
            check_range("--micro-batch", self.micro_batch, 1, 65_536)
        if self.gpus is not None:
            if self.gpus != "all" and not re.fullmatch("0|[1-9][0-9]{0,5}", self.gpus):
                raise UsageError(f"--gpus takes a number or 'all', not {self.gpus!r}")
            if self.device not in (None, "cpu" if self.gpus == "0" else "cuda"):
                raise UsageError(f"--gpus {self.gpus} and --device {self.device} contradict each other",
                                 hint="Leave one of them out")
        if self.procs is not None:
            check_range("--procs", self.procs, 1, 1_024)
            if self.device not in (None, "cpu"):
                raise UsageError(f"--procs are processes on the CPU, and --device is {self.device}",
                                 hint="Leave one of them out")
        parse_interval("--save-every", self.save_every)
        parse_interval("--preview-every", self.preview_every)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How pictures are sampled from a model. None leaves the choice to `number_of_steps` and `interval_at`."""

    sampler: str = "dpmpp-2m"
    steps: int | None = None
    guidance: float = 3.0
    guidance_interval: tuple[float, float] | None = None    # sigma/alpha, low < … ≤ high
    batch_size: int = 8
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check_choice("--sampler", self.sampler, SAMPLERS)
        check_range("--guidance", self.guidance, *GUIDANCE_RANGE)
        check_range("--batch-size", self.batch_size, 1, 4_096)
        check_choice("--precision", self.precision, PRECISIONS[1:])
        if self.steps is not None:
            check_range("--steps", self.steps, 1, 1_000)
        if self.guidance_interval is not None and not (
                0 <= self.guidance_interval[0] <= self.guidance_interval[1] < math.inf):
            raise UsageError("--guidance-interval takes two levels, low and high, of sigma/alpha")

    @classmethod
    def of(cls, model: ModelConfig, **options: Any) -> "Sampling":
        """The options with the defaults for this model. Raises UsageError if it cannot be sampled so."""
        student, own = model.student, {}
        if student is not None:
            own = {"sampler": "ddim", "steps": student.evaluations, "guidance": 1.0}
        sampling = cls(**{**own, **options})
        sampling.check_fits(model)
        return sampling

    def check_fits(self, model: ModelConfig) -> None:
        """Raise UsageError for settings other than those which a distilled model was taught."""
        student = model.student
        if student is not None and (self.sampler not in ("ddim", "euler") or self.guidance != 1
                                    or self.number_of_steps != student.evaluations):
            raise UsageError(
                f"this model was distilled to sample in {student.steps} of DDIM, with a guidance of "
                f"{student.guidance:g} built in", hint="Leave out --sampler, --steps, --guidance, and --from a "
                "picture of another program; or use a model that was not distilled, such as its teacher or demo")

    @property
    def number_of_steps(self) -> int:
        return self.steps if self.steps is not None else SAMPLER_STEPS[self.sampler]

    def interval_at(self, resolution: float) -> tuple[float, float]:
        """(low, high): guidance acts where low < sigma/alpha ≤ high. Default: 0.2 and 6·resolution/64."""
        return self.guidance_interval or (0.2, 6 * resolution / 64)


def teacher_guidance(model: ModelConfig) -> float:
    """The guidance at which a teacher is guided, unless another is given: that with which it is sampled."""
    return 1.0 if model.is_upscaler else Sampling.guidance


@dataclass(frozen=True, kw_only=True)
class Export:
    """The options of an export. If `scheduler` or `precision` is None, the export format's default is used."""

    format: str
    scheduler: str | None = None                # for diffusers: the scheduler of the pipeline
    precision: str | None = None                # for safetensors: the precision of the numbers in the file
    verify: bool = True
    license: str | None = None                  # for diffusers: that of the model card, as the Hub writes it
    push: str | None = None                     # for diffusers: owner/name on the Hub to which it is uploaded
    private: bool = False                       # whether nobody else may see that repository

    def __post_init__(self) -> None:
        check_choice("--to", self.format, tuple(EXPORT_FORMATS))
        for option, value, known, owner in (("--scheduler", self.scheduler, EXPORT_SCHEDULERS, "diffusers"),
                                            ("--precision", self.precision, EXPORT_PRECISIONS, "safetensors")):
            if value is not None:
                check_choice(option, value, known)
                if self.format != owner:
                    raise UsageError(f"{option} is for --to {owner}, not for {self.format}", hint="Leave it out")
        if self.license is not None and not re.fullmatch("[a-z0-9][a-z0-9.+-]{0,60}", self.license):
            raise UsageError(f"--license takes a name such as mit or cc-by-4.0, not {self.license[:60]!r}",
                             hint="The names are at https://huggingface.co/docs/hub/repositories-licenses")
        for option, value in (("--push", self.push), ("--license", self.license)):
            if value is not None and self.format != "diffusers":
                raise UsageError(f"{option} is for --to diffusers, the form with a model card", hint="Leave it out")
        if self.private and self.push is None:
            raise UsageError("--private is for --push", hint="Leave it out")
        if self.push is not None and self.license is None:
            raise UsageError("--push publishes the model, and needs its licence",
                             hint="For example: --license mit. The pictures that it was trained on may set conditions")

    @property
    def suffix(self) -> str:
        """The suffix of the file; empty if the export is a folder."""
        return EXPORT_FORMATS[self.format]

    def check_name(self, out: Path) -> None:
        """Raise UsageError unless `out` can be the name of the export. "." and ".." are places, not names."""
        if self.suffix and out.suffix != self.suffix:
            raise UsageError(f"-o takes the name of a {self.suffix} file, not {out}")
        of_files = (".onnx", *filter(None, EXPORT_FORMATS.values()))
        if not self.suffix and (out.name in ("", "..") or out.suffix in of_files):
            raise UsageError(f"-o takes the name of a folder, not {out}")


# ── The plan ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe that was resolved for the data and the machine: nothing is open. Written durably before step 0."""

    model: ModelConfig
    preset: str
    loss_weighting: str
    variance_grad: str
    times: str
    optimizer: str
    seed: int
    batch_size: int                             # of all processes together
    steps: int
    lr: float
    warmup_steps: int
    cooldown_steps: int
    dropout: float
    caption_drop: float                         # probability that a picture is trained on without its caption
    word_drop: float                            # probability of each word of a caption to be left out
    flip: bool                                  # whether half of the pictures are mirrored at random
    train_images: int
    validation_images: int                      # held out, never trained on
    validation_probe: int                       # how many of them are measured during training
    validate_steps: int                         # steps between two validations
    keep_best: bool                             # whether the weights with the lowest validation loss are kept as well
    data_id: str                                # hash of the decoded pictures and their captions
    init_id: str | None                         # hash of the tensors of the model that training starts from
    shuffle_tags: bool = False                  # whether the parts of a caption between commas change places
    tag_drop: float = 0.0                       # probability of each such part to be left out
    deadline: float | None = None               # --time in seconds, until its steps are counted before the cool-down
    held_out_limit: str | None = None           # highest hash of the pictures held out; None: unknown, or a folder
    crop_of: tuple[Size, ...] = ()              # sizes of the pictures of whose crops an upscaler is trained
    half_side_steps: int = 0                    # steps at the beginning that see pictures at half their side
    adversarial: float = 0.0                    # weight of what a discriminator says of a student's estimates
    fit: str = "crop"                           # how pictures got their shape, never "auto"; earlier versions cropped

    @property
    def cooldown_start(self) -> int:
        """The step after which the learning rate falls. Its state is kept: a longer budget resumes from it."""
        return self.steps - self.cooldown_steps

