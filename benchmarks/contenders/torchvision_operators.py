"""Peers import torchvision, whose wheel on PyPI needs a CUDA build of torch.

Beside a CPU build its own operators are missing and its import fails, though nothing measured here calls one. Import
this first: it declares their names.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    library = torch.library.Library("torchvision", "DEF")           # kept: it ends with its object
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
