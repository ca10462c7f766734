"""Data sets of the Hugging Face hub, `hf://owner/name`: nothing is downloaded unless such an address is typed.

The library huggingface_hub downloads to its own cache and finds there what it has downloaded before.
"""

import os
from pathlib import Path

from .. import hub
from ..errors import DataError

# Files of a data set that may hold pictures or captions; code of a data set is neither downloaded nor run.
PATTERNS = tuple(f"**.{suffix}" for suffix in (
    "jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "txt", "caption", "json", "jsonl", "csv", "tsv",
    "parquet", "arrow", "zip", "tar"))


def is_address(path: Path | str) -> bool:
    """Whether this is the address of a data set: hf://owner/name or hf://owner/name@revision."""
    return hub.parse_address(str(path)) is not None


def lasting_place(path: Path) -> Path:
    """The path or address from which the same data set is found from any current directory."""
    return path if is_address(path) else Path(os.path.abspath(path))


def fetch(path: Path) -> Path:
    """The folder with the files of the data set at an address; downloads what is not in the cache. Raises DataError."""
    library, repository, revision = hub.open_address(_shown(path), DataError)
    try:
        return Path(library.HfApi().snapshot_download(
            repository, revision=revision, repo_type="dataset", allow_patterns=list(PATTERNS)))
    except Exception as error:                  # of the library, of HTTP, of the file system
        raise DataError(f"cannot get {_shown(path)}: {hub.reason(error)}",
                        hint="Check its name and your connection; `hf auth login` if it is private") from error


def _shown(path: Path) -> str:
    return str(path).replace("hf:/", "hf://", 1) if "://" not in str(path) else str(path)
