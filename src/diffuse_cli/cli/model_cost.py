"""Says beforehand that a model is expensive: a small file may declare large pictures, whose sampling takes minutes."""

from typing import TYPE_CHECKING

from ..picture_size import Size
from .terminal import view

if TYPE_CHECKING:
    from ..storage.checkpoint import Model

LARGE = 128                                     # √pixels of a picture from which the operations are counted
MANY = 5e11                                     # operations for one picture from which a CPU takes many seconds


def warn_of_cost(model: "Model", *, passes: int, size: Size | None = None) -> None:
    """Warn if one picture takes very many operations on the CPU. passes: of the network, for one picture.

    size: to which an upscaler enlarges; its operations grow as the number of pixels.
    """
    from ..network.network import flops

    network = model.config.network
    size = size or network.resolution
    if size.side < LARGE or next(model.network.parameters()).device.type != "cpu":
        return
    operations = passes * flops(network) * size.pixels / network.resolution.pixels
    if operations > MANY:
        view.warn(f"this model makes pictures of {size} pixels, each of which takes about {operations / 1e12:.1f} "
                  "trillion operations: on a CPU that may be minutes, and gigabytes of memory")
