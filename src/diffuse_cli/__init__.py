"""Train a text-conditional image diffusion model on a folder of your own pictures, and sample it."""

from .version import __version__

TYPE_CHECKING = False                           # type checkers take it for true; `python_process` says why not `typing`
if TYPE_CHECKING:
    from .api import LoadedModel as LoadedModel
    from .api import export as export
    from .api import load as load
    from .api import train as train
    from .config import Sampling as Sampling
    from .errors import DiffuseError as DiffuseError
    from .reporting.notebook import show as show
    from .sampling.request import SampleRequest as SampleRequest

__all__ = ["DiffuseError", "LoadedModel", "SampleRequest", "Sampling", "__version__", "export", "load", "show",
           "train"]

_MODULE_OF = {"load": "api", "train": "api", "export": "api", "LoadedModel": "api", "Sampling": "config",
              "SampleRequest": "sampling.request", "DiffuseError": "errors",
              "show": "reporting.notebook"}     # public name → its module


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562), because the command line must not wait for torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    """List the public names as well, although they are imported only when they are used."""
    return sorted({*globals(), *__all__})
