"""The command that installs what is missing where this program runs: pipx and uv keep programs in places of their own.

Standard library only.
"""

import functools
import sys
from pathlib import Path

PROGRAM = "diffuse-cli"


@functools.cache
def command(package: str) -> str:
    """How to install a package, or an extra of this program such as "diffuse-cli[onnx]", beside this program."""
    quote = '"' if sys.platform == "win32" else "'"
    quoted = f"{quote}{package}{quote}" if "[" in package else package
    if Path(sys.prefix, "pipx_metadata.json").exists():
        return f"pipx runpip {PROGRAM} install {quoted}"
    if Path(sys.prefix, "uv-receipt.toml").exists():
        return f"uv tool install {quoted if package.startswith(PROGRAM) else f'{PROGRAM} --with {quoted}'}"
    return f"pip install {quoted}"


def extra(name: str) -> str:
    """How to install an extra of this program."""
    return command(f"{PROGRAM}[{name}]")
