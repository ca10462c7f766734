"""The commands with which people continue from a run: resume it, sample, evaluate, export."""

from ..checks import from_dict
from ..config import Recipe
from ..storage.event_log import Entry, EventLog

STUDENT_OPTIONS = ("evaluations", "guidance", "steps", "images", "time", "batch_size", "lr", "seed")    # of `distill`


def commands(name: str, request: Entry, event_log: EventLog) -> list[tuple[str, list[str]]]:
    """(purpose, words of the command) for each thing that one may want to do with the run `name`.

    request: the `request` of the run's config.json.
    """
    prompt = _example_prompt(event_log)
    prompt_words = [] if not prompt else ["--", prompt] if prompt.startswith("-") else [prompt]
    purpose = "Resume"
    if event_log.finished.get("complete"):
        purpose, request = "Train twice as long", _longer(request, event_log)
    training = (purpose, [*_training_command(name, request), *_preview_options(event_log)])
    recipe = request["recipe"]
    first = recipe.get("upscaler_for")                                 # the model whose pictures an upscaler enlarges
    enlarges = first is not None or event_log.started.get("upscaler") is True
    models = ["-m", name] if first is None else ["-m", first, "--upscaler", name]
    return [
        training,
        *([] if enlarges and first is None else [
            ("Generate pictures", ["diffuse", "sample", *models, "-n", "8", "--grid", *prompt_words])]),
        *([("Enlarge a picture", ["diffuse", "upscale", "picture.png", "-m", name])] if enlarges else []),
        *([] if enlarges and recipe.get("evaluations") else [("Evaluate", ["diffuse", "evaluate", name])]),
        ("Export to the format of other programs", ["diffuse", "export", name, "--to", "diffusers"]),
        ("Show the description in the model's file", ["diffuse", "models", "show", name]),
    ]


def _example_prompt(event_log: EventLog) -> str:
    """The prompt that the training suggested at its end, else the first one of the latest preview, else ""."""
    prompts = event_log.previews[-1].get("prompts") if event_log.previews else None
    previewed = prompts[0] if isinstance(prompts, list) and prompts else ""
    return str(event_log.finished.get("prompt") or previewed)


def _longer(request: Entry, event_log: EventLog) -> Entry:
    """The same request with twice the budget, in the unit that was asked for; in steps, if none was."""
    recipe, steps = request["recipe"], event_log.finished.get("steps")
    budgets = {unit: recipe[unit] for unit in ("steps", "images", "time") if recipe.get(unit)}
    unit, amount = next(iter(budgets.items()), ("steps", steps if type(steps) is int else event_log.step))
    return {**request, "recipe": {**recipe, unit: 2 * amount}}


def _preview_options(event_log: EventLog) -> list[str]:
    """The prompts of the previews, as the last start had them: they are no part of the request, which makes the model.
    """
    prompts = event_log.started.get("preview_prompt")
    return [word for prompt in prompts if isinstance(prompt, str) for word in _option("--preview-prompt", prompt)] \
        if isinstance(prompts, list) else []


def _option(name: str, text: str) -> list[str]:
    """The words of an option and its value, which may look like an option itself."""
    return [f"{name}={text}"] if text.startswith("-") else [name, text]


def _training_command(name: str, request: Entry) -> list[str]:
    """The command that requests the same training. It names only the options that differ from their defaults.

    How a student's pictures are read is known from its teacher.
    """
    recipe, defaults = from_dict(Recipe, request["recipe"], where="recipe"), Recipe()
    student = recipe.evaluations is not None
    verb = ["distill", recipe.init] if student else ["train"]
    words = ["diffuse", *verb, str(request["folder"]), *recipe.more_folders]
    for key in request["recipe"]:
        if key == "more_folders" or (student and key not in STUDENT_OPTIONS):
            continue
        value, option = getattr(recipe, key), f"--{key.replace('_', '-')}"
        if value == getattr(defaults, key):
            continue
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
            continue
        text = f"{value:.0f}" if isinstance(value, float) and value == int(value) else str(value)
        text += "s" if key == "time" else ""
        words += _option(option, text)
    return [*words, "--name", name]
