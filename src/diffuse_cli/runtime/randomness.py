"""Random numbers as functions of position: a draw depends on (seed, purpose, step, index), never on earlier draws.

So resuming needs only the step number, splitting a batch over micro-batches or processes changes nothing, and picture k
of a sample is the same alone or among many. The stream of numbers of a key is SplitMix64 (Steele, Lea & Flood 2014),
used as a counter-based hash. It is plain tensor arithmetic, the same on every device, without torch's global generator.
"""

import functools
import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

# Constants of SplitMix64 as signed 64-bit numbers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64            # 2^64 / golden ratio, the increment
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64             # the two multipliers of the finaliser
_MIX_2 = 0x94D049BB133111EB - 2**64


def key(*position: int | str) -> int:
    """A signed 64-bit key for a position such as (seed, "order", epoch): its BLAKE2b hash."""
    digest = hashlib.blake2b(repr(position).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def keys(seed: int, purpose: str, step: int, indices: Tensor) -> Tensor:
    """The keys of a batch, one for each global index of a picture. indices: (N,) int64 → (N,) int64."""
    return _hash(indices * _GOLDEN + key(seed, purpose, step))


def generator(*position: int | str) -> torch.Generator:
    """torch's generator on the CPU, seeded with a position's key, for draws by torch's own routines.

    These are the initial weights and permutations.
    """
    return torch.Generator().manual_seed(key(*position) & (2**63 - 1))


def permutation(length: int, *position: int | str) -> Tensor:
    """A random order of 0 … length - 1. → (length,) int64"""
    return torch.randperm(length, generator=generator(*position))


def bits(keys: Tensor, count: int) -> Tensor:
    """`count` words of 64 random bits for each key: mix(key + j·golden), j = 1 … count (Steele, Lea & Flood 2014).

    keys: (N,) int64 → (N, count) int64.
    """
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device)
    return _hash(keys[:, None] + counter * _GOLDEN)


def uniform(keys: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1), each with 53 random bits. keys: (N,) int64 → (N, count) float64."""
    return _shift(bits(keys, count), 11).double() * 2.0**-53


def normal(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers √(-2 ln u1)·cos(2π·u2) and √(-2 ln u1)·sin(2π·u2) (Box & Muller 1958).

    u1 and u2 are the two halves of a 64-bit word. keys: (N,) int64 → (N, *shape) float32.
    """
    count = math.prod(shape)
    words = bits(keys, (count + 1) // 2)                                                # (N, count/2, rounded up)
    radius = torch.sqrt(-2 * torch.log((_shift(words, 32).float() + 0.5) * 2.0**-32))
    angle = (words & 0xFFFFFFFF).float() * (2 * math.pi * 2.0**-32)
    pairs = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)    # (N, count or count + 1)
    return pairs[:, :count].reshape(len(keys), *shape)


class Dropout:
    """Dropout whose masks depend only on each picture's key and on the number of masks drawn before in this pass.

    The probability is rounded to a multiple of 1/256, so that one 64-bit word serves eight elements.
    """

    def __init__(self, keys: Tensor, probability: float) -> None:
        self.keys = keys
        self.threshold = round(probability * 256)
        self.calls = 0

    def __call__(self) -> Callable[[Tensor], Tensor]:
        """The next mask: a function of x (N, …) → the same shape, the same in every call.

        It zeroes random elements, and scales the others to keep the mean.
        """
        self.calls += 1
        return functools.partial(self._masked, self.calls)

    def _masked(self, number: int, x: Tensor) -> Tensor:
        count = math.prod(x.shape[1:])
        words = bits(_hash(self.keys + number), (count + 7) // 8)                   # (N, count/8, rounded up)
        random = words.view(torch.uint8)[:, :count].reshape(x.shape)                # (N, …)
        if torch.compiler.is_compiling():       # torch 2.13 writes compared bytes beyond their end, and ends, on a CPU
            random = random.float()
        return x * ((random >= self.threshold).to(x.dtype) * (256 / (256 - self.threshold)))


def _shift(z: Tensor, places: int) -> Tensor:
    """Shift to the right, filling with zeros; torch's own shift repeats the sign bit."""
    return (z >> places) & ((1 << (64 - places)) - 1)


def _hash(z: Tensor) -> Tensor:
    """SplitMix64's finaliser (mix): a bijection of 64-bit words in which every input bit affects every output bit."""
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)
