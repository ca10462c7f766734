"""What the page offers: models and their own defaults, samplers, limits, and the runs that can be watched.

Models are named, never given by a path: the page can only choose among those that are listed here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import config
from ..config import Sampling
from ..errors import ModelError, UsageError
from ..model_config import FACTORS, ModelConfig
from ..sampling.png_metadata import MAX_PROMPT
from ..storage import registry
from ..storage.event_log import LOG_FILE
from ..storage.model_info import ModelInfo, read_model_info
from ..version import __version__

MAX_PICTURES = 64                               # of one drawing
SHOWN_WORDS = 100                               # of the captions, the most frequent ones
MAX_PICTURE_BYTES = 64 * 2**20                  # of a picture that is given to the page


@dataclass(frozen=True)
class Models:
    """The models of `diffuse models ls`, and the one that the command named, which is chosen at first."""

    named: str                                  # as it was named on the command line, or as the list names it
    path: Path                                  # the file of that model

    @classmethod
    def starting_with(cls, model: str | None) -> "Models":
        """The models, of which the page first chooses `model`: see `registry.resolve`. Raises ModelError, UsageError.
        """
        path = registry.resolve(model)
        read_model_info(path).config.check_draws_alone()
        listed = next((name for name, file in registry.model_files().items() if file == path), None)
        return cls(listed or model or registry.DEMO, path)

    def files(self) -> dict[str, Path]:
        """The name → the file of each model."""
        return {self.named: self.path, **registry.model_files()}

    def find(self, name: str) -> Path:
        """The file of the model that the page chose. Raises ModelError if it is none of the list."""
        try:
            return self.files()[name]
        except KeyError as error:
            raise ModelError(f"there is no model {name[:80]!r}", hint="Load the page again") from error

    def name_of(self, path: Path) -> str:
        """The name of a file of the list."""
        return next(name for name, file in self.files().items() if file == path)

    def offered(self) -> dict[str, Any]:
        """All that the page offers, ready for JSON. Upscalers, and models that cannot be read, are left out."""
        models = []
        for name, path in self.files().items():
            try:
                info = read_model_info(path)
            except ModelError:
                continue
            if not info.config.is_upscaler:
                models.append({**_described(name, info), "larger": list(larger_sizes(path, info.config))})
        return {
            "version": __version__, "models": models, "chosen": self.named, "samplers": config.SAMPLER_STEPS,
            "precisions": config.PRECISIONS[1:], "batch_size": Sampling.batch_size, "strength": config.STRENGTH,
            "max_pictures": MAX_PICTURES, "max_prompt": MAX_PROMPT, "max_picture_bytes": MAX_PICTURE_BYTES}


def larger_sizes(path: Path, config: ModelConfig) -> dict[str, Path]:
    """The larger sizes in which a model's pictures can be drawn, "256x256" → the file of the upscaler that makes each.
    """
    try:
        config.check_can_be_enlarged()
    except UsageError:
        return {}
    found = {"{}x{}".format(*config.network.resolution.scaled(factor)): registry.upscaler_for(path, factor)
             for factor in FACTORS}
    return {size: upscaler for size, upscaler in found.items() if upscaler is not None}


def _described(name: str, info: ModelInfo) -> dict[str, Any]:
    student, usual, network = info.config.student, Sampling.of(info.config), info.config.network
    width, height = network.resolution
    words = sorted(info.words, key=lambda word: -info.words[word])[:SHOWN_WORDS]
    return {"name": name, "width": width, "height": height, "captions": network.text is not None, "words": words,
            "sampler": usual.sampler, "steps": usual.number_of_steps, "guidance": usual.guidance,
            "interval": usual.interval_at(network.schedule_side),
            "student": None if student is None else {"steps": student.evaluations, "guidance": student.guidance}}


def runs() -> list[dict[str, str]]:
    """The name of each training that can be watched, the latest first, and a text that changes with it.

    Raises StorageError.
    """
    found = []
    for directory in registry.directories():
        try:
            status = (directory / LOG_FILE).stat()
        except OSError:
            continue
        version = f"{status.st_mtime_ns}-{status.st_size}"
        found.append((status.st_mtime_ns, {"name": directory.name, "version": version}))
    return [run for _, run in sorted(found, key=lambda item: -item[0])]
