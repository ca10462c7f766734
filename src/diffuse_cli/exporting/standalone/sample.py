"""Generate pictures with the exported diffusion model in this folder. The code is short, so that you can read it.

    pip install numpy onnxruntime tokenizers
    python sample.py "a red car" "a blue fish" -n 4 --seed 0 -o pictures

A picture starts as pure noise. At each of a few noise levels, from the highest to the lowest, the U-Net estimates the
clean picture from the noisy one, and the sampler takes a step towards that estimate. The same seed gives the same
picture as `diffuse sample`.

In comments on shapes: N pictures of C channels and H × W pixels, S steps, T = 77 text positions.
"""

import argparse
import hashlib
import json
import math
import re
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

Array = np.ndarray[Any, Any]

PROVIDERS = ["CPUExecutionProvider"]            # with onnxruntime-gpu, put "CUDAExecutionProvider" first
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.add_session_config_entry("session.intra_op.allow_spinning", "0")        # threads that wait for others sleep
BATCH = 8                                       # pictures that are drawn at once


# ── Steps: the noise levels, and the numbers of each step ───────────────────────────────────────────────────────────


def step_table(constants: dict[str, Any], steps: int, *, guided: bool = True, sampler: str = "dpmpp-2m") -> Array:
    """Return a row of seven numbers for each step, which hold the noise schedule and the sampler. (S, 7) float32

    A noisy picture at log-SNR λ is alpha·image + sigma·noise, with alpha² + sigma² = 1 and λ = 2 ln(alpha/sigma). The
    first noise level is pure noise. The others are evenly spaced in λ, down to invisible noise, or for few steps those
    of a table. The last step ends at the clean picture, λ = ∞. The columns:

    time         input of the U-Net: 0 (hardly any noise) … 999 (pure noise)
    from_noisy   the U-Net's output implies the clean picture from_noisy·noisy + from_output·output
    from_output
    guided       1 if guidance acts at this step, else 0: it helps at middle levels (Kynkäänniemi et al. 2024)
    memory       the estimate is extrapolated to image + memory·(image - previous image)
    keep         the step ends at keep·noisy + gain·extrapolated
    gain

    These steps are DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), or DDIM (Song et al. 2021, eq. 12) if memory is 0.
    """
    schedule, (low, high) = constants["schedule"], constants["guidance"]["interval"]
    (second, last), times = schedule["levels"], schedule["times"]
    levels = np.array(schedule["few"].get(str(steps), np.linspace(second, last, max(0, steps - 1))))
    t = np.array([1.0, *np.interp(levels, np.linspace(second, last, len(times)), times)])       # (S,), 1 to nearly 0
    log_snr = np.array([schedule["first_level"], *levels, math.inf])                    # (S + 1,)
    alphas, sigmas = 1 / np.sqrt(1 + np.exp(-log_snr)), 1 / np.sqrt(1 + np.exp(log_snr))
    alpha, sigma = alphas[:-1], sigmas[:-1]

    from_noisy, from_output = {                 # depends on what the U-Net predicts (v: Salimans & Ho 2022, section 4)
        "v": (alpha, -sigma),
        "epsilon": (1 / alpha, -sigma / alpha),
        "x0": (np.zeros(steps), np.ones(steps)),
    }[constants["prediction"]]
    acts = (low < sigma / alpha) & (sigma / alpha <= high) & guided

    h = np.diff(log_snr) / 2                    # the length of a step
    memory = np.zeros(steps)
    if sampler == "dpmpp-2m":                   # no memory in the first and last step, or where guidance begins or ends
        memory[1:-1] = np.where(acts[1:-1] == acts[:-2], h[1:-1] / (2 * h[:-2]), 0)
    keep, gain = sigmas[1:] / sigma, -alphas[1:] * np.expm1(-h)
    table = np.stack([1000 * t - 1, from_noisy, from_output, acts, memory, keep, gain], axis=1)
    return table.astype(np.float32)


# ── Noise: a function of the seed alone ─────────────────────────────────────────────────────────────────────────────


def noise_of(seed: int, shape: tuple[int, ...]) -> Array:
    """Return the standard normal noise with which the picture of a seed starts. → shape, float32

    SplitMix64, as a hash of the pixel's number, gives 64 random bits for every two pixels: 32 bits for a radius and 32
    for an angle (Box & Muller 1958).
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
    """The opened model: `encode` the prompts, then `generate` pictures."""

    def __init__(self, folder: Path) -> None:
        self.constants = json.loads((folder / "sampler.json").read_text(encoding="utf-8"))
        self.unet = onnxruntime.InferenceSession(folder / "unet.onnx", OPTIONS, PROVIDERS)
        self.text_encoder, self.tokenizer = None, None
        if self.constants["text"] is not None:                          # None: the model takes no prompts
            self.text_encoder = onnxruntime.InferenceSession(folder / "text_encoder.onnx", OPTIONS, PROVIDERS)
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))        # truncates and pads to T

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        height, width = np.broadcast_to(self.constants["resolution"], 2).tolist()       # one number for squares
        return self.constants["channels"], height, width                # C: grey or RGB, and perhaps alpha

    def encode(self, prompts: list[str]) -> Array:
        """Turn prompts into text features for the U-Net: (N, T, width)."""
        assert self.text_encoder is not None, "this model takes no prompts"
        assert self.tokenizer is not None
        tokens = np.array([encoding.ids for encoding in self.tokenizer.encode_batch(prompts)], np.int64)    # (N, T)
        text: Array = self.text_encoder.run(None, {"tokens": tokens})[0]
        return text

    def estimate(self, noisy: Array, text: Array | None, row: Array) -> Array:
        """Estimate the clean pictures from the noisy ones. row: of a step table. (N, C, H, W) → the same"""
        time, from_noisy, from_output = row[:3]
        inputs = {"noisy": noisy, "time": np.full(len(noisy), time)}
        output = self.unet.run(None, inputs if text is None else {**inputs, "text": text})[0]
        prediction = output[:, : noisy.shape[1]]                        # further channels hold the learned variance
        image: Array = from_noisy * noisy + from_output * prediction
        return image

    def guided_estimate(self, noisy: Array, text: Array, negative: Array, row: Array, guidance: float) -> Array:
        """Estimate with classifier-free guidance (Ho & Salimans 2021, eq. 6), away from the negative prompt."""
        images = self.estimate(np.concatenate([noisy, noisy]), np.concatenate([text, negative]), row)
        image, without = np.split(images, 2)
        return dynamic_threshold(without + np.float32(guidance) * (image - without), self.constants["threshold_share"])

    def generate(
        self, noise: Array, table: Array, *, text: Array | None = None, negative: Array | None = None,
        guidance: float = 1.0,
    ) -> Array:
        """Turn noise (N, C, H, W) into pictures in [0, 1], (N, C, H, W), by the steps of a table.

        text, negative: features of the prompts and of the negative prompts (N, T, width); without them, or where the
        table says so, there is no guidance.
        """
        noisy, previous = noise, noise
        for row in table:
            guided, memory, keep, gain = row[3:]
            if guided and text is not None and negative is not None:
                image = self.guided_estimate(noisy, text, negative, row, guidance)
            else:
                image = self.estimate(noisy, text, row)
                if self.constants["range"] is not None:                 # None: a distilled model is not clipped
                    image = np.clip(image, -self.constants["range"], self.constants["range"])
            noisy = keep * noisy + gain * (image + memory * (image - previous))
            previous = image
        pictures: Array = np.clip(noisy / 2 + 0.5, 0, 1)
        return pictures


def dynamic_threshold(image: Array, share: float) -> Array:
    """Bring each picture, which guidance exaggerates, back into [-1, 1] (Saharia et al. 2022, section 2.3).

    The limit is the magnitude that `share` of the picture's values do not exceed, at least 1: the values are clipped to
    it and divided by it. (N, C, H, W) → the same
    """
    magnitudes = np.sort(np.abs(image).reshape(len(image), -1))
    limit = np.maximum(magnitudes[:, math.ceil(share * magnitudes.shape[1]) - 1], 1).reshape(-1, 1, 1, 1)
    limit = np.repeat(limit, image.shape[1], axis=1)                                    # (N, C, 1, 1)
    if image.shape[1] % 2 == 0:
        limit[:, -1] = 1                                                                # alpha is only clipped
    thresholded: Array = np.clip(image, -limit, limit) / limit
    return thresholded


# ── Pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def png(picture: Array) -> bytes:
    """Encode a picture in [0, 1], (C, H, W), as a PNG with 8 bits per channel."""
    pixels = np.rint(picture * 255).astype(np.uint8).transpose(1, 2, 0)                 # (H, W, C)
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)                            # filter 0 before each row

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)    # as C
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def save(folder: Path, picture: Array, prompt: str, seed: int) -> Path:
    """Write a picture under a new name, never over an existing file. → its path"""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "picture"
    path, again = folder / f"{words}-{seed}.png", 1
    while path.exists():
        again += 1
        path = folder / f"{words}-{seed}-{again}.png"
    path.write_bytes(png(picture))
    return path


# ── The command ─────────────────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Generate the pictures that the command line asks for, and print the path of each."""
    parser = argparse.ArgumentParser(description="Generate pictures with the exported model beside this file.")
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", default=[""], help="a description of the picture")
    parser.add_argument("-n", "--num", type=int, default=1, help="pictures for each prompt (1)")
    parser.add_argument("-s", "--seed", type=int, default=0, help="of the first picture; picture k has seed + k (0)")
    parser.add_argument("-o", "--out", type=Path, default=Path("samples"), help="directory for the pictures (samples)")
    parser.add_argument("--negative", default="", help="a description of what to avoid")
    parser.add_argument("--guidance", type=float, help="how closely to follow the prompt; 1 is none (the model's)")
    parser.add_argument("--steps", type=int, help="more are better and slower (the model's)")
    parser.add_argument("--sampler", choices=["dpmpp-2m", "ddim"], help="how it steps (the model's)")
    options = parser.parse_args()
    if options.num < 1 or not 0 <= options.seed < 2**63 - options.num:
        parser.error("--num must be at least 1, and seeds below 2**63")
    if options.steps is not None and not 1 <= options.steps <= 1000:
        parser.error("--steps must be from 1 to 1000")
    if options.guidance is not None and not 0 <= options.guidance <= 100:
        parser.error("--guidance must be from 0 to 100")

    sampler = Sampler(Path(__file__).parent)
    constants = sampler.constants
    if constants["text"] is None and (options.negative or options.guidance is not None):
        parser.error("this model was trained without captions: it takes no --negative and no --guidance")
    if constants["text"] is None and any(options.prompts):
        print("this model was trained without captions and ignores prompts", file=sys.stderr)
    guidance = constants["guidance"]["scale"] if options.guidance is None else options.guidance
    tables = {name: table for name, table in constants["steps"].items() if name != "columns"}
    if constants["distilled"] and (options.guidance is not None or options.negative):
        parser.error("this model is distilled: its guidance is built in, and takes no --guidance and no --negative")
    name = options.sampler or next(iter(tables))
    if name not in tables or (constants["distilled"] and options.steps not in (None, len(tables[name]))):
        parser.error(f"this model is distilled: it samples in {len(next(iter(tables.values())))} steps of ddim alone")
    steps = options.steps or len(tables[name])
    table = step_table(constants, steps, guided=guidance != 1, sampler=name)
    options.out.mkdir(parents=True, exist_ok=True)
    for prompt in options.prompts:
        text, negative = None, None
        if constants["text"] is not None:
            text, negative = sampler.encode([prompt, options.negative])[:, None]
        end = options.seed + options.num
        for first in range(options.seed, end, BATCH):
            seeds = range(first, min(first + BATCH, end))
            noise = np.stack([noise_of(seed, sampler.shape) for seed in seeds])
            told = [None if one is None else np.repeat(one, len(seeds), axis=0) for one in (text, negative)]
            pictures = sampler.generate(noise, table, text=told[0], negative=told[1], guidance=guidance)
            for seed, picture in zip(seeds, pictures, strict=True):
                print(save(options.out, picture, prompt, seed), flush=True)


if __name__ == "__main__":
    main()
