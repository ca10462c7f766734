"""`diffuse doctor`: what the program finds on this computer, and what is missing for which of its extras."""

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import installing
from ..config import Machine
from ..errors import DiffuseError
from ..files import durable
from ..storage import home_directory, registry
from ..version import __version__
from . import options
from .terminal import view

LIBRARIES = ("torch", "numpy", "pillow", "safetensors", "tokenizers", "typer", "rich")      # whose versions are shown
_REQUIREMENT = re.compile(r"""([\w.-]+).*?; extra == ['"](\w+)['"]""")


def doctor(
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the device, versions, memory, directories, the terminal, and which extras are installed.

    [bold]diffuse doctor[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    found = {"program": _program(), "device": _device(), "memory": _memory(), "home": _home(),
             "terminal": view.abilities(), "extras": _missing_of_extras()}
    if view.settings.json:
        view.out_json(found)
        return
    lines = list(_lines(found))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        view.out(f"{label:<{width}}  {text}")


def _program() -> dict[str, str]:
    versions = {"diffuse-cli": __version__, "python": platform.python_version(), "system": platform.platform()}
    return versions | {name: _version(name) or "missing" for name in LIBRARIES}


def _version(package: str) -> str | None:
    """The version of an installed package, which is not imported; None if it is missing."""
    import importlib.metadata  # takes as long as the rest of this command's imports

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> dict[str, Any]:
    """The device that commands choose by themselves, or why there is none. Each GPU with its memory."""
    try:
        import torch

        from ..runtime import devices

        device = devices.choose_device(Machine())
        gpus = [{"name": torch.cuda.get_device_name(index),
                 "bytes": torch.cuda.get_device_properties(index).total_memory}
                for index in range(torch.cuda.device_count() if device.type == "cuda" else 0)]
        return {"kind": device.type, "name": devices.describe_device(device), "cuda": torch.version.cuda, "gpus": gpus,
                "precision": devices.choose_precision(Machine(), device)}
    except (DiffuseError, ImportError, OSError, RuntimeError) as error:
        return {"error": " ".join(str(error).split())}


def _memory() -> int | None:
    """The bytes of memory of this computer; None if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):                      # Windows has no such function
        return None


def _home() -> dict[str, Any]:
    """Where models and caches are, how much they take, and how much is free; or why the place cannot be used."""
    try:
        root = home_directory.root()
        return {"path": str(root), "models": len(registry.model_names()), "free": durable.free_bytes(root),
                "model_bytes": _bytes_below(home_directory.models_directory()),
                "cache_bytes": _bytes_below(home_directory.cache_directory())}
    except (DiffuseError, OSError) as error:
        return {"error": str(error)}


def _bytes_below(directory: Path) -> int:
    return sum(os.lstat(os.path.join(folder, name)).st_size
               for folder, _, names in os.walk(directory) for name in names)


def _missing_of_extras() -> dict[str, list[str]]:
    """Extra → the packages of it that are not installed."""
    import importlib.metadata

    missing: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("diffuse-cli") or ():
        if (match := _REQUIREMENT.match(requirement)) and match[2] != "dev":
            missing.setdefault(match[2], []).extend([] if _version(match[1]) else [match[1]])
    return missing


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(label, text) pairs for people."""
    device, home, terminal = found["device"], found["home"], found["terminal"]
    yield from found["program"].items()
    if "error" in device:
        yield "device", f"none can be used: {device['error']}"
    else:
        yield "device", f"{device['name']}, {device['precision']}" + (
            "" if device["kind"] != "cpu" else "; torch sees no GPU")
        for gpu in device["gpus"]:
            yield "gpu", f"{gpu['name']}, {gpu['bytes'] / 1e9:.0f} GB"
    yield "memory", "unknown" if found["memory"] is None else f"{found['memory'] / 1e9:.1f} GB"
    if "error" in home:
        yield "directory", f"cannot be used: {home['error']}"
    else:
        yield "directory", home["path"]
        yield "models", f"{home['models']}, {home['model_bytes'] / 1e6:,.0f} MB"
        yield "cache", f"{home['cache_bytes'] / 1e6:,.0f} MB, emptied by `diffuse data clear`"
        yield "free", f"{home['free'] / 1e9:,.1f} GB"
    yield "terminal", (f"{terminal['columns']} x {terminal['lines']}, " if terminal["draws"] else "") + (
        "live display and pictures" if terminal["draws"] and terminal["unicode"] else
        "live display without pictures: no Unicode" if terminal["draws"] else "plain lines: stderr is not a terminal "
        "that draws, or NO_COLOR is set")
    for extra, packages in sorted(found["extras"].items()):
        yield f"extra {extra}", "installed" if not packages else (
            f"needs {', '.join(packages)}: {installing.extra(extra)}")
