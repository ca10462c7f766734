"""The prompt in what other programs write into or beside a generated picture.

It is taken where it is certain: the negative prompt is never one, nor is a text that may lead to something else.
"""

import re
from collections.abc import Iterable
from typing import Any

from ..files.strict_json import loads_shallow

# Names of texts in PNGs: of stable-diffusion-webui and its relatives, ComfyUI, InvokeAI, and NovelAI.
PROMPT_TEXTS = ("parameters", "prompt", "invokeai_metadata", "sd-metadata", "generation_data", "Comment")
_PARAMETERS = re.compile(r"Steps: \d+, (?:\w[\w ]*: [^,]+, )*(Sampler|Seed|CFG scale): ")
_ADAPTER = re.compile(r",? ?<(?:lora|lyco|hypernet):[^<>]*>", re.IGNORECASE)
_WEIGHT = re.compile(r"\(([^()]*):[0-2]?\.\d+\)")
_LINKS = ("text", "positive", "conditioning", "conditioning_1", "clip_l", "string", "value", "prompt")     # of ComfyUI
_MAX_LINKS = 20                                 # nodes that are followed from the sampler to the text
_IGNORED = (2, 4)                               # modes of nodes that ComfyUI leaves out


def without_signs(text: str) -> str:
    """A text without the signs of prompts, `<lora:name:1>` and the weight in `(red:1.2)`; any other text as it is."""
    has_signs = ":" in text and ("<" in text or "(" in text)
    return _WEIGHT.sub(r"\1", _ADAPTER.sub("", text)).strip(" ,") if has_signs else text


def prompt_of_parameters(lines: Iterable[str]) -> str | None:
    """The prompt in the text that stable-diffusion-webui and its like save; None for another text.

    Its lines up to "Negative prompt: …" or "Steps: …, Sampler: …".
    """
    prompt: list[str] = []
    is_over = is_generated = False
    for line in lines:
        is_generated = is_generated or bool(_PARAMETERS.match(line))
        is_over = is_over or is_generated or line.startswith("Negative prompt:")
        if not is_over:
            prompt.append(line)
    return without_signs(" ".join(prompt)) if is_generated or (is_over and prompt) else None


def prompt_in(name: str, text: str) -> str | None:
    """The prompt in the text of a PNG that has one of the names PROMPT_TEXTS; None if there is none that is certain."""
    if name == "parameters" and not text.lstrip().startswith("{"):
        return prompt_of_parameters(text.splitlines())
    try:
        document = loads_shallow(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    if name == "prompt":
        return prompt_of_graph(document)
    found = (document.get(key) for key in ("positive_prompt", "prompt"))
    return next((value for value in found if isinstance(value, str) and value.strip()), None)


def prompt_of_graph(document: dict[str, Any]) -> str | None:
    """The text that all samplers of a ComfyUI graph start from, in either form in which it is saved.

    None if there is none, or several.
    """
    graph = _graph_of_workflow(document) if isinstance(document.get("nodes"), list) else document
    prompts = set()
    for node in graph.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if isinstance(inputs, dict) and isinstance(node.get("class_type"), str):
            starts = ("positive", "conditioning") if node["class_type"].endswith("Guider") else ("positive",)
            prompts |= {text_at(graph, inputs[key]) for key in starts if isinstance(inputs.get(key), list)}
    return prompts.pop() or None if len(prompts) == 1 else None


def text_at(graph: dict[str, Any], link: Any) -> str:
    """The text that the node behind a link, [number of the node, output], encodes; "" if it is not found."""
    for _ in range(_MAX_LINKS):
        node = graph.get(str(link[0])) if isinstance(link, list) and link and isinstance(link[0], str | int) else None
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if not isinstance(inputs, dict):
            break
        link = next((inputs[key] for key in _LINKS if key in inputs), None)
        if isinstance(link, str):
            return link
    return ""


def _graph_of_workflow(document: dict[str, Any]) -> dict[str, Any]:
    """The graph of a workflow as the editor saves it, in the form that is given to the server: nodes by their numbers.

    A node that encodes or holds a text has it under "text", unless it is linked.
    """
    links = document.get("links")
    origins = {link[0]: [str(link[1]), link[2]] for link in (links if isinstance(links, list) else ())
               if isinstance(link, list) and len(link) > 2 and isinstance(link[0], int)}
    graph: dict[str, Any] = {}
    for node in document["nodes"]:
        if not isinstance(node, dict) or node.get("mode") in _IGNORED:
            continue
        listed, values = node.get("inputs"), node.get("widgets_values")
        inputs: dict[str, Any] = {
            str(slot.get("name")): origins[slot["link"]] for slot in (listed if isinstance(listed, list) else ())
            if isinstance(slot, dict) and isinstance(slot.get("link"), int) and slot["link"] in origins}
        text = values[0] if isinstance(values, list) and values else None
        if isinstance(text, str) and not any(key in inputs for key in _LINKS):
            inputs["text"] = text
        graph[str(node.get("id"))] = {"class_type": node.get("type"), "inputs": inputs}
    return graph
