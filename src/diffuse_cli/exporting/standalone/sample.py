"""Draw pictures with an exported model, and see how it is done.

    python sample.py "a red car" "a blue fish" -n 4 --seed 0 -o pictures

needs the files beside this one, and `pip install numpy onnxruntime tokenizers`. A picture begins as pure noise. At
each of a few noise levels, from the highest to the lowest, the U-Net says what clean picture it takes the noisy one
for, and the sampler goes a step towards it. The same seed gives the same picture as `diffuse sample`.

In the shape comments: N pictures of C channels and R × R pixels, S steps, T = 77 positions of text.
"""

import argparse
import hashlib
import json
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

Array = np.ndarray[Any, Any]

PROVIDERS = ["CPUExecutionProvider"]            # onnxruntime-gpu: put "CUDAExecutionProvider" first


# ── Steps: how noisy the picture is when, and what a step does ──────────────────────────────────────────────────────


def step_table(constants: dict[str, Any], steps: int, *, guided: bool = True, sampler: str = "dpmpp-2m") -> Array:
    """All that the sampler needs to know of the noise, a row of seven numbers for each step. (S, 7) float32

    A picture at log-SNR λ is alpha·image + sigma·noise, with alpha² + sigma² = 1 and λ = 2 ln(alpha/sigma). The first
    level is that of pure noise; the others are even in λ, down to noise that cannot be seen; the last step ends at the
    clean picture, λ = ∞. The columns:

    time         what the U-Net is told: 0 (hardly any noise) … 999 (nothing else)
    from_noisy   the clean picture that the U-Net's answer implies is from_noisy·noisy + from_output·output
    from_output
    guided       1 where guidance acts, else 0: it helps at middle levels (Kynkäänniemi et al. 2024)
    memory       the estimate is extrapolated to image + memory·(image - the one before)
    keep         and the step ends at keep·noisy + gain·extrapolated
    gain

    That is DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); with memory 0 it is DDIM (Song et al. 2021, eq. 12).
    """
    schedule, (low, high) = constants["schedule"], constants["guidance"]["interval"]
    (second, last), known = schedule["levels"], schedule["times"]
    levels = np.linspace(second, last, steps - 1)
    t = np.array([1.0, *np.interp(levels, np.linspace(second, last, len(known)), known)])       # (S,), 1 to nearly 0
    log_snr = np.array([schedule["first_level"], *levels, math.inf])                    # (S + 1,)
    alphas, sigmas = 1 / np.sqrt(1 + np.exp(-log_snr)), 1 / np.sqrt(1 + np.exp(log_snr))
    alpha, sigma = alphas[:-1], sigmas[:-1]

    from_noisy, from_output = {                 # what the output stands for (v: Salimans & Ho 2022, section 4)
        "v": (alpha, -sigma),
        "epsilon": (1 / alpha, -sigma / alpha),
        "x0": (np.zeros(steps), np.ones(steps)),
    }[constants["prediction"]]
    acts = (low < sigma / alpha) & (sigma / alpha <= high) & guided

    h = np.diff(log_snr) / 2                    # the length of a step
    memory = np.zeros(steps)
    if sampler == "dpmpp-2m":                   # no memory of another kind of estimate, nor in the first and last step
        memory[1:-1] = np.where(acts[1:-1] == acts[:-2], h[1:-1] / (2 * h[:-2]), 0)
    keep, gain = sigmas[1:] / sigma, -alphas[1:] * np.expm1(-h)
    table = np.stack([1000 * t - 1, from_noisy, from_output, acts, memory, keep, gain], axis=1)
    return table.astype(np.float32)


# ── Noise: a function of the seed alone ─────────────────────────────────────────────────────────────────────────────


def noise_of(seed: int, shape: tuple[int, ...]) -> Array:
    """Standard normal noise from which the picture of a seed begins: SplitMix64 as a hash of the pixel's number.

    Two pixels are made of 64 random bits, 32 for a radius and 32 for an angle (Box & Muller 1958). → shape, float32
    """
    digest = hashlib.blake2b(repr((seed, "sample", -1)).encode(), digest_size=8).digest()
    key, count = np.frombuffer(digest, "<u8"), math.prod(shape)
    z = key + np.arange(1, (count + 1) // 2 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)   # modulo 2^64
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    high, low = (z >> np.uint64(32)).astype(np.float32), (z & np.uint64(0xFFFFFFFF)).astype(np.float32)
    radius = np.sqrt(-2 * np.log((high + np.float32(0.5)) * np.float32(2**-32)))
    angle = low * np.float32(2 * math.pi * 2**-32)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].reshape(shape)


# ── The model and the sampler ───────────────────────────────────────────────────────────────────────────────────────


class Sampler:
    """An exported folder, opened: `encode` prompts, then `draw`."""

    def __init__(self, folder: Path) -> None:
        self.constants = json.loads((folder / "sampler.json").read_text(encoding="utf-8"))
        self.unet = onnxruntime.InferenceSession(folder / "unet.onnx", providers=PROVIDERS)
        self.text_encoder, self.tokenizer = None, None
        if self.constants["text"] is not None:                          # else the model reads no prompts
            self.text_encoder = onnxruntime.InferenceSession(folder / "text_encoder.onnx", providers=PROVIDERS)
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))        # cuts and pads to T

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, R, R)"""
        side = self.constants["resolution"]
        return self.constants["channels"], side, side

    def encode(self, prompts: list[str]) -> Array:
        """What the prompts mean to the U-Net: (N, T, width)."""
        assert self.text_encoder is not None, "this model reads no prompts"
        assert self.tokenizer is not None
        tokens = np.array([encoding.ids for encoding in self.tokenizer.encode_batch(prompts)], np.int64)    # (N, T)
        text: Array = self.text_encoder.run(None, {"tokens": tokens})[0]
        return text

    def estimate(self, noisy: Array, text: Array | None, row: Array) -> Array:
        """The clean pictures that the U-Net takes the noisy ones for. (N, C, R, R) → the same."""
        time, from_noisy, from_output = row[:3]
        inputs = {"noisy": noisy, "time": np.full(len(noisy), time)}
        output = self.unet.run(None, inputs if text is None else {**inputs, "text": text})[0]
        prediction = output[:, : noisy.shape[1]]                        # further channels hold the learned variance
        image: Array = from_noisy * noisy + from_output * prediction
        return image

    def guided_estimate(self, noisy: Array, text: Array, negative: Array, row: Array, guidance: float) -> Array:
        """Classifier-free guidance (Ho & Salimans 2021, eq. 6): away from the negative prompt, towards the prompt."""
        both = self.estimate(np.concatenate([noisy, noisy]), np.concatenate([text, negative]), row)
        image, without = np.split(both, 2)
        return dynamic_threshold(without + np.float32(guidance) * (image - without), self.constants["threshold_share"])

    def draw(
        self, noise: Array, table: Array, *, text: Array | None = None, negative: Array | None = None,
        guidance: float = 1.0,
    ) -> Array:
        """From noise (N, C, R, R) by the steps of a table to pictures in [0, 1], (N, C, R, R)."""
        noisy, before = noise, noise
        for row in table:
            guided, memory, keep, gain = row[3:]
            if guided and text is not None and negative is not None:
                image = self.guided_estimate(noisy, text, negative, row, guidance)
            else:
                image = np.clip(self.estimate(noisy, text, row), -1, 1)
            noisy = keep * noisy + gain * (image + memory * (image - before))
            before = image
        pictures: Array = np.clip(noisy / 2 + 0.5, 0, 1)
        return pictures


def dynamic_threshold(image: Array, share: float) -> Array:
    """Pull each picture back into [-1, 1]: clip it where all but the brightest of its values lie, and divide by that.

    Guidance exaggerates (Saharia et al. 2022, section 2.3). (N, C, R, R) → the same.
    """
    magnitudes = np.sort(np.abs(image).reshape(len(image), -1))
    limit = np.maximum(magnitudes[:, math.ceil(share * magnitudes.shape[1]) - 1], 1).reshape(-1, 1, 1, 1)
    thresholded: Array = np.clip(image, -limit, limit) / limit
    return thresholded


# ── Pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def png(picture: Array) -> bytes:
    """A picture in [0, 1], (C, R, R), as a PNG file of 8 bits."""
    pixels = np.rint(picture * 255).astype(np.uint8).transpose(1, 2, 0)                 # (R, R, C)
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)                            # each begins with its filter: 0

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)     # 0: grey, 2: RGB
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def save(folder: Path, picture: Array, prompt: str, seed: int) -> Path:
    """Write a picture where no file is yet; its path."""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "picture"
    path, again = folder / f"{words}-{seed}.png", 1
    while path.exists():
        again += 1
        path = folder / f"{words}-{seed}-{again}.png"
    path.write_bytes(png(picture))
    return path


# ── The command ─────────────────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """What is asked for on the command line; prints the path of each picture."""
    parser = argparse.ArgumentParser(description="Draw pictures with the exported model beside this file.")
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", default=[""], help="what to draw")
    parser.add_argument("-n", "--num", type=int, default=1, help="pictures of each prompt (1)")
    parser.add_argument("-s", "--seed", type=int, default=0, help="of the first; picture k has seed + k (0)")
    parser.add_argument("-o", "--out", type=Path, default=Path("samples"), help="a directory (samples)")
    parser.add_argument("--negative", default="", help="what to lead away from")
    parser.add_argument("--guidance", type=float, help="how closely to follow the prompt; 1 is none (the model's)")
    parser.add_argument("--steps", type=int, help="more are better and slower (the model's)")
    parser.add_argument("--sampler", choices=["dpmpp-2m", "ddim"], default="dpmpp-2m")
    asked = parser.parse_args()
    if asked.num < 1 or asked.seed < 0 or (asked.steps is not None and asked.steps < 1):
        parser.error("--num and --steps must be at least 1, --seed at least 0")

    sampler = Sampler(Path(__file__).parent)
    usual = sampler.constants
    guidance = usual["guidance"]["scale"] if asked.guidance is None else asked.guidance
    steps = asked.steps or len(usual["steps"][asked.sampler])
    table = step_table(usual, steps, guided=guidance != 1, sampler=asked.sampler)
    asked.out.mkdir(parents=True, exist_ok=True)
    for prompt in asked.prompts:
        text, negative = (None, None) if usual["text"] is None else sampler.encode([prompt, asked.negative])[:, None]
        for seed in range(asked.seed, asked.seed + asked.num):
            noise = noise_of(seed, (1, *sampler.shape))                 # one at a time: little memory, soonest seen
            (picture,) = sampler.draw(noise, table, text=text, negative=negative, guidance=guidance)
            print(save(asked.out, picture, prompt, seed), flush=True)


if __name__ == "__main__":
    main()
