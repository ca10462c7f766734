"""Uploads an exported folder to the Hugging Face Hub, when a repository is named."""

from collections.abc import Sequence
from pathlib import Path

from .. import hub
from ..errors import UploadError, UsageError


def check(repository: str) -> None:
    """Raise UsageError unless something can be uploaded to `repository`, owner/name, before anything is computed."""
    if not hub.is_repository(repository):
        raise UsageError(f"--push takes owner/name, not {repository[:80]!r}")
    try:
        library = hub.library()
    except ImportError as error:
        raise UsageError("--push needs huggingface_hub", hint=hub.EXTRA) from error
    if library.get_token() is None:
        raise UsageError("--push needs a token of the Hub that may write",
                         hint="Run `hf auth login`, or set HF_TOKEN")


def upload(folder: Path, files: Sequence[str], repository: str, *, private: bool = False) -> str:
    """Upload these files of a folder as one commit, and create the repository if there is none. → its web address

    private: whether a new repository is private; to one that is there and public, nothing is uploaded then. The Hub
    judges the model card first; a card that it refuses uploads nothing. Raises UploadError.
    """
    interface = hub.library().HfApi()
    try:
        address = interface.create_repo(repository, repo_type="model", exist_ok=True, private=private or None)
        if private and not interface.model_info(repository).private:
            raise UploadError(f"{repository} is public, and --private was given: nothing was uploaded",
                              hint=f"The export is in {folder}. Make the repository private, or choose another name")
        interface.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(files),
                                commit_message="A model of diffuse-cli")
    except UploadError:
        raise
    except Exception as error:                  # of the library, of HTTP, of the file system
        raise UploadError(f"cannot upload to {repository}: {hub.reason(error)}",
                          hint=f"The export is in {folder}; `hf upload {repository} {folder}` tries again") from error
    return str(address)
