"""Pictures that a teacher draws for its student, where those on which it was trained are gone."""

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks import to_dict
from ..config import Machine, Sampling
from ..errors import DataError, UsageError, system_reason
from ..files import durable
from ..runtime import launch_environment
from ..storage.model_info import read_model_info
from .prompt_files import read_prompts
from .terminal import progress, view

if TYPE_CHECKING:
    from ..sampling.request import SampleRequest

PICTURES = 1_000                                # that are drawn at least


def draw(path: Path, prompts_file: str, folder: Path, machine: Machine, *, dry_run: bool) -> None:
    """Fill `folder` with pictures that the model at `path` draws of the prompts in a file, PICTURES or more.

    Each prompt has as many as every other. Picture k has seed k, and the sizes of the model take turns. Those that are
    there already are not drawn again, so the same command goes on where it was interrupted. Raises UsageError and
    DataError, also if the folder holds anything else.
    """
    from ..sampling.request import SampleRequest, file_stem

    info = read_model_info(path)
    config, sizes = info.config, info.config.network.sizes
    if config.is_upscaler or not config.conditional:
        raise UsageError("--prompts is for teachers that draw pictures of prompts", hint="Leave it out")
    prompts = _prompts_in(prompts_file)
    repeated = [prompt for prompt in prompts for _ in range(math.ceil(PICTURES / len(prompts)))]
    sampling = Sampling.of(config)
    requests = {f"{file_stem(prompt, seed)}.png": SampleRequest(
        prompt=prompt, seed=seed, sampling=sampling, size=sizes[seed % len(sizes)])
        for seed, prompt in enumerate(repeated)}
    there = _names_in(folder)
    if others := sorted(name for name in there if name not in requests
                        or _is_another(folder / name, requests[name], info.sha256)):
        raise DataError(f"{folder} holds something else than this teacher's pictures of these prompts: {others[0]}",
                        hint="Give a folder that is new, or leave --prompts out to learn from what is there")
    if missing := [request for name, request in requests.items() if name not in there]:
        if dry_run or launch_environment.process_rank().world_size > 1:
            raise UsageError(f"{len(missing):,} of {len(requests):,} pictures have to be drawn before a training is "
                             "planned", hint="Leave --dry-run out, or begin with one process")
        view.say(f"the teacher draws pictures of the {len(prompts):,} prompts in {prompts_file}: {len(missing):,} of "
                 f"{len(requests):,}, in {folder}")
        _write(path, missing, folder, machine)


def _write(path: Path, requests: "Sequence[SampleRequest]", folder: Path, machine: Machine) -> None:
    from .. import api
    from ..pictures import image_files
    from ..runtime import devices
    from ..sampling import png_metadata

    durable.make_directory(folder, mode=0o755)
    loaded = api.load(path, device=str(devices.choose_device(machine)))
    with progress.of("drawing", len(requests)) as advance_to:
        for sample in loaded.generate(requests, progress=advance_to):
            texts = png_metadata.png_texts(png_metadata.collect_metadata(sample, loaded.model))
            data = image_files.encode(sample.pixels, texts=texts)
            with contextlib.suppress(FileExistsError):                 # the same command, run twice, drew it first
                durable.write(folder / f"{sample.file_stem}.png", data, exclusive=True, mode=0o644)


def _prompts_in(file: str) -> list[str]:
    """The different prompts of a file. Warns of settings that stand beside them."""
    lines = read_prompts(file)
    if any(setting is not None for line in lines for name, setting in to_dict(line).items() if name != "prompt"):
        view.warn(f"the settings beside prompts in {file} are not used: of each prompt as many pictures are drawn, as "
                  "the teacher draws them by default")
    return list(dict.fromkeys(line.prompt for line in lines))


def _is_another(picture: Path, request: "SampleRequest", sha256: str) -> bool:
    """Whether a picture says that it has another prompt, or was drawn by a model without this hash."""
    from ..sampling.png_metadata import MAX_PROMPT, SampleMetadata, read_settings

    try:
        found = read_settings(picture)
    except DataError:                           # edited, perhaps: it is the user's
        return False
    return isinstance(found, SampleMetadata) and (
        (found.prompt, found.model_sha256) != (request.prompt[:MAX_PROMPT], sha256))


def _names_in(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if not name.startswith(".")}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise DataError(f"cannot read {folder}: {system_reason(error)}", hint="Give a folder") from error
