"""Data sets of the Hugging Face hub, `hf://owner/name`: nothing is downloaded unless such an address is typed.

The library huggingface_hub downloads to its own cache and finds there what it has downloaded before.
"""

import os
import re
from pathlib import Path

from ..errors import DataError

_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?/*")        # Path makes one slash of two
# Files of a data set that may hold pictures or captions; code of a data set is neither downloaded nor run.
PATTERNS = tuple(f"**.{suffix}" for suffix in (
    "jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "txt", "caption", "json", "jsonl", "csv", "tsv",
    "parquet", "arrow", "zip", "tar"))


def is_address(path: Path | str) -> bool:
    """Whether this is the address of a data set: hf://owner/name or hf://owner/name@revision."""
    return _ADDRESS.fullmatch(str(path)) is not None


def lasting_place(path: Path) -> Path:
    """The path or address from which the same data set is found from any current directory."""
    return path if is_address(path) else Path(os.path.abspath(path))


def fetch(path: Path) -> Path:
    """The folder with the files of the data set at an address; downloads what is not in the cache. Raises DataError."""
    match = _ADDRESS.fullmatch(str(path))
    assert match is not None
    try:
        import huggingface_hub
    except ImportError as error:
        raise DataError(f"{_shown(path)} needs huggingface_hub", hint="pip install 'diffuse-cli[hub]'") from error
    try:
        return Path(huggingface_hub.snapshot_download(
            match[1], revision=match[2], repo_type="dataset", allow_patterns=list(PATTERNS)))
    except Exception as error:                  # of the library, of HTTP, of the file system
        raise DataError(f"cannot get {_shown(path)}: {str(error).splitlines()[0][:200] if str(error) else 'no answer'}",
                        hint="Check its name and your connection; `hf auth login` if it is private") from error


def _shown(path: Path) -> str:
    return re.sub(r"^hf:/+", "hf://", str(path))
