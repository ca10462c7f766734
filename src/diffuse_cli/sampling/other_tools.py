"""The settings of other programs, from their PNGs and prompt files, in this program's words.

It knows the texts of AUTOMATIC1111's web UI and its relatives, ComfyUI, InvokeAI and Fooocus, and the names that they
and kohya's scripts use in files of prompts. What has no counterpart here is named, so that the user can be told.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..checks import check_range
from ..config import SAMPLERS, SEED_RANGE
from ..data.generated_prompts import text_at
from ..errors import UsageError
from ..files.strict_json import JsonError, loads_strict

# Field of `OtherSettings` → its names elsewhere, in lower case and without spaces, hyphens and underscores.
_NAMES = {
    "prompt": ("prompt", "positiveprompt", "positive", "text", "caption", "fullprompt"),
    "negative": ("negative", "negativeprompt", "fullnegativeprompt", "uncond"),
    "seed": ("seed", "noiseseed"),
    "steps": ("steps", "samplesteps", "numinferencesteps", "numsteps", "samplingsteps"),
    "sampler": ("sampler", "samplername", "samplerindex", "scheduler"),
    "guidance": ("guidance", "guidancescale", "cfg", "cfgscale", "scale"),
    "n": ("n", "niter", "num", "numimages", "count", "numimagesperprompt"),
}
_RANGES = {"seed": (0, SEED_RANGE[1] // 2), "steps": (1, 1_000), "guidance": (0, 100), "n": (1, 1_000_000)}
_FIELD_OF = {name: ours for ours, names in _NAMES.items() for name in names}
_NOISE_SCHEDULES = re.compile(r"(karras|exponential|polyexponential|sgmuniform|uniform|simple|normal|scheduler|k)$")
_A1111_VALUE = re.compile(r'([\w /+-]{1,60}):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')


@dataclass(frozen=True, kw_only=True)
class OtherSettings:
    """Settings as far as they have a counterpart here; None or "" where they were not given.

    ignored: names of the settings that have none.
    """

    prompt: str = ""
    negative: str = ""
    n: int | None = None
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    ignored: tuple[str, ...] = ()

    @property
    def sampling(self) -> dict[str, Any]:
        """The fields of `Sampling` that are known."""
        known = {"steps": self.steps, "sampler": self.sampler, "guidance": self.guidance}
        return {name: value for name, value in known.items() if value is not None}


@dataclass
class _Translation:
    fields: dict[str, Any] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def translate(values: Mapping[str, Any]) -> OtherSettings:
    """Another program's settings, by the names that it gives them. A setting without counterpart is `ignored`."""
    result = _Translation()
    for name, value in values.items():
        ours = _FIELD_OF.get(re.sub(r"[\s_-]", "", name.lower()))
        if value in (None, "") or (ours == "seed" and str(value) == "-1"):             # elsewhere, -1 is a random seed
            continue
        found = None if ours is None or ours in result.fields else _value(ours, value, result.ignored)
        if found is None:
            result.ignored.append(name if ours is None else f"{name} {str(value)[:40]}")
        else:
            result.fields[str(ours)] = found
    return OtherSettings(**result.fields, ignored=tuple(result.ignored))


def _value(ours: str, value: Any, ignored: list[str]) -> Any:
    """A value in the form of our field; None if there is none. Parts of a prompt that are left out are `ignored`."""
    if ours in ("prompt", "negative"):
        return plain_prompt(value, ignored) if isinstance(value, str) else None
    if ours == "sampler":
        return sampler_of(str(value))
    try:
        number = float(value) if ours == "guidance" else int(value)
        check_range(ours, number, *_RANGES[ours])
        return number
    except (TypeError, ValueError, OverflowError, UsageError):
        return None


def sampler_of(name: str) -> str | None:
    """Our name of another program's sampler, for example of "DPM++ 2M Karras"; None if we have no such sampler."""
    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower().replace("++", "pp"))

    wanted = _NOISE_SCHEDULES.sub("", plain(name).removeprefix("k").removeprefix("sample"))
    classes = {"dpmsolvermultistep": "dpmpp-2m", "unipcmultistep": "unipc", "eulerdiscrete": "euler",
               "heundiscrete": "heun"}
    return next((ours for ours in SAMPLERS if plain(ours) == wanted), classes.get(wanted))


def plain_prompt(text: str, ignored: list[str]) -> str:
    """A prompt without the signs by which other programs load networks or weigh words; these become `ignored`."""
    def leave_out(match: re.Match[str]) -> str:
        ignored.append(match[0][:40])
        return match[1] if match.re.groups else ""

    text = re.sub(r"<(?:lora|lyco|hypernet):[^<>]*>", leave_out, text)
    text = re.sub(r"\(([^()]*):[0-9.]+\)", leave_out, text)
    return " ".join(text.split()) if ignored else text.strip()


# ── PNGs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_png_text(name: str, text: str) -> OtherSettings | None:
    """The settings in the text `name` of another program's PNG; None if they cannot be found in it."""
    try:
        if name == "parameters" and not text.lstrip().startswith("{"):
            return parse_parameters(text)
        content = loads_strict(text, infinities=True)                  # ComfyUI writes NaN
        if not isinstance(content, dict):
            return None
        if name == "prompt":
            return _parse_graph(content)
        image = content.get("image")                                   # of earlier versions of InvokeAI
        if isinstance(image, dict):
            prompt = image.get("prompt")
            first = prompt[0] if isinstance(prompt, list) and prompt else prompt
            content = {**image, "prompt": first.get("prompt") if isinstance(first, dict) else first}
        settings = translate({key: value for key, value in content.items()
                              if isinstance(value, str | int | float) and not isinstance(value, bool)})
        return settings if settings.prompt else None
    except JsonError:
        return None


def ends_parameters(line: str) -> bool:
    """Whether this is the last line of the settings of the web UI, such as "Steps: 20, Sampler: Euler, …"."""
    return re.match(r"\s*Steps: \d", line) is not None


def parse_parameters(text: str) -> OtherSettings | None:
    """The prompt, "Negative prompt: …", and the last line "Steps: 20, Sampler: …" of the web UI; None without it."""
    *lines, last = text.strip().split("\n")
    if not ends_parameters(last):
        return None
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    values = {match[1].strip(): match[2].strip().strip('"') for match in _A1111_VALUE.finditer(last)}
    return translate({"prompt": prompt.strip(), "negative": negative.strip(), **values})


def _parse_graph(graph: dict[str, Any]) -> OtherSettings | None:
    """The sampler of a ComfyUI graph, and the texts that lead to it."""
    for node in graph.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if isinstance(inputs, dict) and "steps" in inputs and "positive" in inputs:
            values = {key: value for key, value in inputs.items() if isinstance(value, str | int | float)}
            name = values.pop("sampler_name", None)
            return translate({"prompt": text_at(graph, inputs["positive"]),
                              "negative": text_at(graph, inputs.get("negative")), "sampler": name,
                              **{key: value for key, value in values.items() if key != "scheduler"}})
    return None
