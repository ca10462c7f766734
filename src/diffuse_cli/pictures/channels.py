"""Pictures in other channels: as a model sees them, and as they are shown on a ground.

The C channels of a picture are 1 for grey or 3 for red, green and blue, and one more for alpha.
"""

import numpy as np

MID_GREY = 128                                  # of the plain ground on which transparent pictures are compared
LUMA = (0.299, 0.587, 0.114)                    # shares of red, green and blue in the brightness (ITU-R BT.601)
_CHECK, _CHECKERS = 4, (160, 224)               # side in pixels of the squares of a checkerboard, and their grey values


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Pictures as a model with so many channels sees them: grey by its brightness, opaque without alpha.

    (…, H, W, 3) uint8, or (…, H, W, 4) if the model has alpha → (…, H, W, channels)
    """
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    if channels < 3:
        colours = (colours @ LUMA).round().astype(np.uint8)[..., None]
    if channels % 2:
        return colours
    if not alpha.shape[-1]:
        alpha = np.full_like(colours[..., :1], 255)
    return np.concatenate([colours, alpha], axis=-1)


def opaque(pixels: np.ndarray, ground: np.ndarray | int | None = None) -> np.ndarray:
    """Pictures as they are shown, in red, green and blue. (…, H, W, C) uint8 → (…, H, W, 3)

    ground: the grey values behind transparent ones, (H, W, 1) or one for all; None is a checkerboard.
    """
    has_alpha = pixels.shape[-1] % 2 == 0
    colours = pixels[..., :-1] if has_alpha else pixels
    colours = colours if colours.shape[-1] == 3 else colours.repeat(3, axis=-1)
    if not has_alpha:
        return colours
    if ground is None:
        rows, columns = (np.arange(side) // _CHECK for side in pixels.shape[-3:-1])
        ground = np.where((rows[:, None] + columns) % 2, *_CHECKERS)[..., None]
    alpha, ground = pixels[..., -1:].astype(np.uint16), np.asarray(ground, np.uint16)
    result: np.ndarray = ((colours * alpha + ground * (255 - alpha) + 127) // 255).astype(np.uint8)
    return result
