"""The errors that a user can cause or repair, each with its exit code.

Exit codes (documented in docs/cli.md): 0 ok, 2 usage, 3 input data, 4 model,
5 in use, 6 storage, 7 memory, 8 diverged, 9 worker, 10 export, 11 upload, 70 internal bug, 128 + n signal n.
"""


class DiffuseError(Exception):
    """An error for the user: one sentence says what happened, and a hint what to do."""

    exit_code = 70

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}. {self.hint}".strip() if self.hint else self.what


class UsageError(DiffuseError):
    """An option or argument cannot be used."""

    exit_code = 2


class DataError(DiffuseError):
    """The user's pictures or captions cannot be used."""

    exit_code = 3


class ModelError(DiffuseError):
    """A model or checkpoint is missing, damaged, hostile or too new."""

    exit_code = 4


class InUseError(DiffuseError):
    """Another process holds the lock that is needed."""

    exit_code = 5


class StorageError(DiffuseError):
    """The disk is full, read-only or failing."""

    exit_code = 6


class OutOfMemoryError(DiffuseError):
    """Not even one image at a time fits into memory."""

    exit_code = 7


class WorkerError(DiffuseError):
    """One of several processes that work together was lost."""

    exit_code = 9

    def __init__(self, what: str, *,
                 hint: str = "Give the same command again; a training resumes from its last save") -> None:
        super().__init__(what, hint=hint)


class DivergedError(DiffuseError):
    """Three steps in a row gave numbers that are not finite."""

    exit_code = 8


class ExportError(DiffuseError):
    """The exported model does not give the original's answers. The export was removed."""

    exit_code = 10

    def __init__(self, what: str) -> None:
        super().__init__(what, hint="Nothing was written. Please report this, with the model's configuration; "
                         "--no-verify exports without the comparison")


class UploadError(DiffuseError):
    """The Hub did not take a model. The export on the disk is whole."""

    exit_code = 11


def system_reason(error: OSError) -> str:
    """What the system says about an error, as the end of a sentence, such as "no space left on device"."""
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]
