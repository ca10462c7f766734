"""How a picture was made, written into the picture: in the form that other tools read, and losslessly.

Never a path, a host or a user's name. Knows no file format: it makes texts.
"""

import json
from typing import Any

from .. import __version__
from .checkpoint import Model
from .config import Sampling
from .generation import Drawn

MAX_PROMPT = 4_096                              # characters kept of a prompt


def settings(drawn: Drawn, model: Model, sampling: Sampling) -> dict[str, Any]:
    """Everything needed to draw the picture again."""
    resolution = model.config.network.resolution
    return {
        "prompt": drawn.prompt[:MAX_PROMPT], "seed": drawn.seed, "sampler": sampling.sampler,
        "steps": sampling.number_of_steps, "guidance": sampling.guidance,
        "guidance_interval": list(sampling.interval_at(resolution)), "size": [resolution, resolution],
        "model": str(model.training.get("name", "model"))[:64], "model_sha256": model.sha256, "version": __version__}


def texts(made: dict[str, Any]) -> dict[str, str]:
    """The text chunks of a PNG: "parameters" as other tools parse it, "diffuse" as JSON, the source of truth."""
    width, height = made["size"]
    facts = {
        "Steps": made["steps"], "Sampler": made["sampler"], "CFG scale": f"{made['guidance']:g}", "Seed": made["seed"],
        "Size": f"{width}x{height}", "Model hash": made["model_sha256"][:10], "Model": _quoted(made["model"]),
        "Version": f"diffuse-cli {made['version']}"}
    line = ", ".join(f"{key}: {value}" for key, value in facts.items())
    prompt = made["prompt"].encode("utf-8", "replace").decode()
    return {"parameters": f"{prompt}\n{line}" if prompt else line, "diffuse": json.dumps(made)}


def _quoted(value: str) -> str:
    """As other tools write and parse a value that holds what separates values."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:"\n') else value
