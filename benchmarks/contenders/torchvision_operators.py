"""Declares the operators of torchvision where they are missing; import this before a peer.

The peers import torchvision, whose wheel on PyPI needs a CUDA build of torch. With a CPU build torchvision's own
operators are missing and its import fails, although nothing measured here calls them.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    library = torch.library.Library("torchvision", "DEF")           # kept: declarations end with it
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
