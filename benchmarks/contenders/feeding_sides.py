"""From a folder of pictures to batches (N, 3, R, R) in [-1, 1]: from our cache, or decoded in every epoch by a peer."""

import tempfile
from pathlib import Path
from typing import Any

from . import Contender

BATCH = 64                                      # pictures


def ours(*, folder: str, resolution: int) -> Contender:
    """A unit is a batch from the memory-mapped cache, which exists already."""
    import numpy as np

    from diffuse_cli.data.captions import find_pictures
    from diffuse_cli.data.dataset import open_dataset
    from diffuse_cli.pictures.pixels import from_pixels

    directory = Path(tempfile.mkdtemp())
    dataset = _result(open_dataset(find_pictures(Path(folder)), resolution=resolution, directory=directory))
    order = np.random.default_rng(0)

    def work(batches: int) -> None:
        for _ in range(batches):
            from_pixels(dataset.images[order.integers(0, len(dataset.images), BATCH)])

    return Contender(work, {"pictures": BATCH})


def ours_first_time(*, folder: str, resolution: int) -> Contender:
    """A unit is a whole folder: found, hashed, decoded and written to a new cache, in one process."""
    from diffuse_cli.data.captions import find_pictures
    from diffuse_cli.data.dataset import open_dataset

    count = len(find_pictures(Path(folder)).pictures)

    def work(times: int) -> None:
        for _ in range(times):
            with tempfile.TemporaryDirectory() as directory:
                _result(open_dataset(find_pictures(Path(folder)), resolution=resolution, directory=Path(directory)))

    return Contender(work, {"pictures": count})


def ours_again(*, folder: str, resolution: int) -> Contender:
    """A unit is a whole folder that is found, and recognised in the cache."""
    from diffuse_cli.data.captions import find_pictures
    from diffuse_cli.data.dataset import open_dataset

    directory = Path(tempfile.mkdtemp())

    def work(times: int) -> None:
        for _ in range(times):
            _result(open_dataset(find_pictures(Path(folder)), resolution=resolution, directory=directory))

    work(1)
    return Contender(work, {})


def _result(generator: Any) -> Any:
    """The return value of a generator, run to its end."""
    try:
        while True:
            next(generator)
    except StopIteration as stopped:
        return stopped.value


def theirs(*, folder: str, resolution: int) -> Contender:
    """`datasets` with the transforms of diffusers' examples behind a `DataLoader`; a unit is a batch."""
    loader = _their_loader(folder, resolution)

    def endless() -> Any:
        while True:
            yield from loader

    batches = endless()

    def work(count: int) -> None:
        for _ in range(count):
            next(batches)

    return Contender(work, {"pictures": BATCH})


def theirs_first_time(*, folder: str, resolution: int) -> Contender:
    """A unit is a whole folder: found by `datasets`, written to a new cache of its own, and decoded once."""
    count = len(list(Path(folder).iterdir()))

    def work(times: int) -> None:
        for _ in range(times):
            for _ in _their_loader(folder, resolution):
                pass

    return Contender(work, {"pictures": count})


def _their_loader(folder: str, resolution: int) -> Any:
    from . import torchvision_operators  # noqa: F401
    import datasets  # isort: skip
    from torch.utils.data import DataLoader
    from torchvision import transforms

    transform = transforms.Compose([
        transforms.Resize(resolution, interpolation=transforms.InterpolationMode.BILINEAR),
        transforms.CenterCrop(resolution), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize([0.5], [0.5])])
    dataset = datasets.load_dataset("imagefolder", data_dir=folder, split="train", cache_dir=tempfile.mkdtemp())
    dataset.set_transform(lambda rows: {"input": [transform(image.convert("RGB")) for image in rows["image"]]})
    return DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0, drop_last=True)
