"""Models of the Hugging Face Hub, `hf://owner/name`: downloaded when such an address is typed, then read as any file.

Only the files of a model are downloaded, and only if the sizes that the Hub names are within the limits of a model's
files. The library keeps them in its own cache, and finds them there without a connection.
"""

from pathlib import Path
from typing import Any

from .. import hub
from ..errors import ModelError
from ..files.strict_json import MAX_JSON_BYTES
from .diffusers_config import INDEX_FILE, REPORT_FILE, SCHEDULER_FILE, TEXT_ENCODER_FILE, TOKENIZER_FILE, UNET_FILE
from .safetensors_header import MAX_FILE_BYTES, MAX_HEADER_BYTES

MODEL_FILE = "model.safetensors"
_LIMITS = {                                     # file of a folder in diffusers' form → its maximum number of bytes
    **dict.fromkeys((INDEX_FILE, SCHEDULER_FILE, "unet/config.json", "text_encoder/config.json",
                     REPORT_FILE), MAX_JSON_BYTES),
    TOKENIZER_FILE: MAX_HEADER_BYTES,
    **dict.fromkeys((UNET_FILE, TEXT_ENCODER_FILE), MAX_FILE_BYTES)}


def fetch(address: str) -> Path:
    """The file of the model at an address, as `registry.resolve` gives it. Raises ModelError."""
    library, repository, revision = hub.open_address(address, ModelError)
    interface = library.HfApi()
    try:
        info = interface.model_info(repository, revision=revision, files_metadata=True)
        names = _judged({file.rfilename: file.size for file in info.siblings or ()}, address)
        folder = interface.snapshot_download(repository, revision=revision, allow_patterns=names)
    except ModelError:
        raise
    except Exception as error:                  # of the library, of HTTP, of the file system
        folder = _in_cache(interface, repository, revision)
        if folder is None:
            raise ModelError(f"cannot get {address}: {hub.reason(error)}",
                             hint="Check its name and your connection; `hf auth login` if it is private") from error
    for name in (INDEX_FILE, MODEL_FILE):
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise _no_model(address)


def _judged(sizes: dict[str, int | None], address: str) -> list[str]:
    """The names of the files to download. sizes: of all files, in bytes.

    Raises ModelError if there is no model, or one that is too large.
    """
    limits = _LIMITS if INDEX_FILE in sizes else {MODEL_FILE: MAX_FILE_BYTES}
    names = [name for name in limits if name in sizes]
    if not names:
        raise _no_model(address)
    for name in names:
        size = sizes[name]
        if size is None or size > limits[name]:
            raise ModelError(f"cannot use {address}: its {name} is {_shown(size)}, and the limit is "
                             f"{_shown(limits[name])}", hint="Nothing was downloaded")
    return names


def _in_cache(interface: Any, repository: str, revision: str | None) -> str | None:
    """The folder of a model that was downloaded before; None if there is none."""
    try:
        folder: str = interface.snapshot_download(repository, revision=revision, local_files_only=True,
                                                 allow_patterns=[*_LIMITS, MODEL_FILE])
    except Exception:
        return None
    return folder


def _no_model(address: str) -> ModelError:
    return ModelError(f"cannot use {address}: there is neither {INDEX_FILE} nor {MODEL_FILE} in it",
                      hint="Give a model that `diffuse export --push` published")


def _shown(size: int | None) -> str:
    return "of unknown size" if size is None else f"{size:,} bytes"
