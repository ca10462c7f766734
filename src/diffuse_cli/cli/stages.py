"""Which upscaler, if any, enlarges the pictures of a model: the one that is named, or the one that a size asks for."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError, UsageError
from ..model_config import FACTORS, ModelConfig, NetworkConfig, Upscaling
from ..picture_size import Size
from ..storage import registry
from ..storage.model_info import read_model_info

if TYPE_CHECKING:
    from ..sampling.png_metadata import SampleMetadata


def find_upscaler(
    path: Path, config: ModelConfig, size: Size | None, name: str | None, metadata: "SampleMetadata | None", *,
    animate: bool,
) -> tuple[Path | None, Size | None]:
    """The file of the upscaler, or None, and the size that the model itself draws; None: its first size.

    path, config: of the model; size, name: the values of --size and --upscaler; metadata: of the PNG that is generated
    again, whose size and upscaler count where these are not given. animate: the steps of sampling are to be shown.
    Raises UsageError, ModelError.
    """
    config.check_draws_alone()
    second, small = _find(path, config.network, size, name, metadata)
    if second is not None:
        config.check_can_be_enlarged()
    if second is not None and animate:
        raise UsageError("--animate shows one model, and two make these pictures",
                         hint="Leave --animate out, or --size and --upscaler")
    return second, small


def _find(
    path: Path, network: NetworkConfig, size: Size | None, name: str | None, metadata: "SampleMetadata | None",
) -> tuple[Path | None, Size | None]:
    if metadata is not None and metadata.upscaler is not None and name is None and size is None:
        from ..sampling import png_metadata

        assert metadata.upscaler_sha256 is not None
        found = png_metadata.find_model(metadata.upscaler, metadata.upscaler_sha256, option="--upscaler")
        return found, _small_size(upscaling_of(found), network, Size(*metadata.size))
    if name is not None:
        named = registry.resolve(name)
        return named, _small_size(upscaling_of(named), network, size)
    if size is None and metadata is not None and Size(*metadata.size) in network.sizes:
        return None, Size(*metadata.size)
    for factor in FACTORS:
        if size is not None and size not in network.sizes and size in (one.scaled(factor) for one in network.sizes):
            found = _upscaler_for(path, factor)
            return found, _small_size(upscaling_of(found), network, size)
    if size is not None and size not in network.sizes:
        own, larger = (", ".join(str(one.scaled(factor)) for one in network.sizes) for factor in (1, FACTORS[-1]))
        raise UsageError(f"this model was not trained on pictures of {size} px",
                         hint=f"It draws {own}, and {larger} with an upscaler")
    return None, size


def upscaling_of(path: Path) -> Upscaling:
    """What the upscaler in a file enlarges. Raises UsageError if it is none, ModelError."""
    return read_model_info(path).config.checked_upscaling()


def _upscaler_for(path: Path, factor: int) -> Path:
    """The upscaler that was trained for the model in the file `path`. Raises ModelError if there is none."""
    found = registry.upscaler_for(path, factor)
    if found is None:
        model = registry.upscaler_name(path, factor).removesuffix(f"-x{factor}")
        raise ModelError(f"no upscaler makes the pictures of this model {factor} times as large",
                         hint=f"Train one: diffuse train ./images --upscaler-for {model} --factor {factor}; or name "
                              "another model's with --upscaler")
    return found


def _small_size(upscaling: Upscaling, network: NetworkConfig, size: Size | None) -> Size | None:
    """The size of the model's pictures that become `size`; None for None. Raises UsageError if there is none."""
    if size is None:
        return None
    possible = {one.scaled(upscaling.factor): one for one in network.sizes}
    if size not in possible:
        raise UsageError(f"with this upscaler, the model makes no pictures of {size} px",
                         hint=f"It makes {', '.join(map(str, possible))}")
    return possible[size]
