"""The command that installs what is missing where this program runs: pipx and uv keep programs in places of their own.

Standard library only.
"""

import functools
import sys
from pathlib import Path
from typing import Any

PROGRAM = "diffuse-cli"
UV_RECEIPT = "uv-receipt.toml"                   # in an environment that `uv tool install` made: what it was asked for


@functools.cache
def command(package: str) -> str:
    """How to install a package, or an extra of this program such as "diffuse-cli[onnx]", beside this program."""
    if Path(sys.prefix, "pipx_metadata.json").exists():
        return f"pipx runpip {PROGRAM} install {_quoted(package)}"
    if Path(sys.prefix, UV_RECEIPT).exists():
        return _uv_command(package)
    return f"pip install {_quoted(package)}"


def extra(name: str) -> str:
    """How to install an extra of this program."""
    return command(f"{PROGRAM}[{name}]")


def _uv_command(package: str) -> str:
    """A command that names what uv was asked for before as well, because uv removes what it is not told of again."""
    source, extras, others = PROGRAM, set(), []
    for requirement in _uv_requirements():
        if requirement.get("name") == PROGRAM:
            source = requirement.get("directory") or requirement.get("editable") or PROGRAM
            extras.update(requirement.get("extras", ()))
        else:
            others.append(requirement.get("name"))
    if package.startswith(PROGRAM):
        extras.add(package.removeprefix(f"{PROGRAM}[").removesuffix("]"))
    elif package not in others:
        others.append(package)
    named = _quoted(f"{source}[{','.join(sorted(extras))}]" if extras else source)
    return " ".join([f"uv tool install {named}", *(f"--with {other}" for other in others)])


def _uv_requirements() -> list[dict[str, Any]]:
    import tomllib  # seldom needed

    try:
        return list(tomllib.loads(Path(sys.prefix, UV_RECEIPT).read_text(encoding="utf-8"))["tool"]["requirements"])
    except (OSError, ValueError, LookupError):
        return []


def _quoted(package: str) -> str:
    """For the shell, where brackets and spaces have a meaning."""
    quote = '"' if sys.platform == "win32" else "'"
    return f"{quote}{package}{quote}" if set("[ ") & set(package) else package
