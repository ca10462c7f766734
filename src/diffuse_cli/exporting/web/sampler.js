// From noise to a picture: the random numbers of a seed, the numbers of each step, and the loop over the steps.
//
// The functions compute what those of sample.py do, the script of an ONNX folder. `constants` is its sampler.json.

"use strict";

// ── Noise: a function of the seed alone ─────────────────────────────────────────────────────────────────────────────

const wrapped = value => BigInt.asUintN(64, value);

/** The standard normal noise with which the picture of a seed starts. seed: a BigInt → Float32Array of `count` */
function noiseOf(seed, count) {
  const key = blake2b(new TextEncoder().encode(`(${seed}, 'sample', -1)`)), half = (count + 1) >> 1;
  const noise = new Float32Array(2 * half), turn = Math.fround(2 * Math.PI * 2 ** -32);
  for (let k = 0; k < half; k++) {                                      // SplitMix64, as a hash of the pixel's number
    let z = wrapped(key + BigInt(k + 1) * 0x9E3779B97F4A7C15n);
    z = wrapped((z ^ z >> 30n) * 0xBF58476D1CE4E5B9n);
    z = wrapped((z ^ z >> 27n) * 0x94D049BB133111EBn);
    z ^= z >> 31n;
    const high = Math.fround(Math.fround(Number(z >> 32n)) + 0.5), low = Math.fround(Number(z & 0xFFFFFFFFn));
    const radius = Math.sqrt(-2 * Math.log(high * 2 ** -32)), angle = Math.fround(low * turn);      // Box & Muller 1958
    noise[k] = radius * Math.cos(angle);
    noise[half + k] = radius * Math.sin(angle);
  }
  return noise.subarray(0, count);
}

const BLAKE2B_START = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n];
const BLAKE2B_ORDERS = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0"];

/** The hash of at most 128 bytes, in 8 bytes, as a number (RFC 7693). */
function blake2b(message) {
  const block = new BigUint64Array(16), bytes = new DataView(block.buffer), v = [...BLAKE2B_START, ...BLAKE2B_START];
  message.forEach((byte, k) => bytes.setUint8(k, byte));
  const words = Array.from(block, (_, k) => bytes.getBigUint64(8 * k, true));
  const start = BLAKE2B_START[0] ^ 0x01010008n;                         // 8 bytes of output, no key
  v[0] = start;
  v[12] ^= BigInt(message.length);
  v[14] = wrapped(~v[14]);                                              // the only block is the last
  const turned = (value, places) => wrapped(value >> places | value << 64n - places);
  const mix = (a, b, c, d, x, y) => {
    v[a] = wrapped(v[a] + v[b] + x);
    v[d] = turned(v[d] ^ v[a], 32n);
    v[c] = wrapped(v[c] + v[d]);
    v[b] = turned(v[b] ^ v[c], 24n);
    v[a] = wrapped(v[a] + v[b] + y);
    v[d] = turned(v[d] ^ v[a], 16n);
    v[c] = wrapped(v[c] + v[d]);
    v[b] = turned(v[b] ^ v[c], 63n);
  };
  for (let round = 0; round < 12; round++) {
    const order = [...BLAKE2B_ORDERS[round % 10]].map(digit => words[parseInt(digit, 16)]);
    for (let k = 0; k < 4; k++) mix(k, 4 + k, 8 + k, 12 + k, order[2 * k], order[2 * k + 1]);
    for (let k = 0; k < 4; k++)
      mix(k, 4 + (k + 1) % 4, 8 + (k + 2) % 4, 12 + (k + 3) % 4, order[8 + 2 * k], order[9 + 2 * k]);
  }
  return start ^ v[0] ^ v[8];
}

// ── Steps: the noise levels, and the numbers of each step ───────────────────────────────────────────────────────────

/** An object for each step, which hold the noise schedule and the sampler: see `step_table` in sample.py. */
function stepTable(constants, steps, {guided, sampler}) {
  const {schedule, guidance: {interval: [low, high]}} = constants, {levels: [second, last], times} = schedule;
  const even = Array.from({length: steps - 1}, (_, k) => second + (last - second) * (steps > 2 ? k / (steps - 2) : 0));
  const levels = schedule.few[steps] ?? even;
  const timeOf = level => {
    const place = Math.min(Math.max((level - second) / (last - second), 0), 1) * (times.length - 1);
    const left = Math.min(Math.floor(place), times.length - 2);
    return times[left] + (times[left + 1] - times[left]) * (place - left);
  };
  const t = [1, ...levels.map(timeOf)], logSnr = [schedule.first_level, ...levels, Infinity];
  const alphas = logSnr.map(level => 1 / Math.sqrt(1 + Math.exp(-level)));
  const sigmas = logSnr.map(level => 1 / Math.sqrt(1 + Math.exp(level)));
  const acts = t.map((_, k) => guided && low < sigmas[k] / alphas[k] && sigmas[k] / alphas[k] <= high);
  const h = t.map((_, k) => (logSnr[k + 1] - logSnr[k]) / 2);
  return t.map((time, k) => {
    const alpha = alphas[k], sigma = sigmas[k];
    const [fromNoisy, fromOutput] = {
      "v": [alpha, -sigma], "epsilon": [1 / alpha, -sigma / alpha], "x0": [0, 1]}[constants.prediction];
    const remembers = sampler === "dpmpp-2m" && k > 0 && k < steps - 1 && acts[k] === acts[k - 1];
    return {
      time: 1000 * time - 1, fromNoisy, fromOutput, guided: acts[k], memory: remembers ? h[k] / (2 * h[k - 1]) : 0,
      keep: sigmas[k + 1] / sigma, gain: -alphas[k + 1] * Math.expm1(-h[k])};
  });
}

// ── Reverse diffusion ───────────────────────────────────────────────────────────────────────────────────────────────

/** Turn noise into a picture: after every step, yield {noisy, image}, the noisy picture and the estimate of the clean one.
 *
 *  text, negative: what `encodeText` says of the prompt and of the negative prompt; null if the model takes none. */
function* generate(layers, constants, table, {noise, text, negative, guidance}) {
  let noisy = noise, previous = noise;
  for (const row of table) {
    const estimate = features => {
      const output = predict(layers, noisy, Math.fround(row.time), features);
      return output.map((value, k) => row.fromNoisy * noisy[k] + row.fromOutput * value);
    };
    let image = estimate(text);
    if (row.guided && text) {
      const without = estimate(negative);
      image = dynamicThreshold(
        image.map((value, k) => without[k] + guidance * (value - without[k])), constants);
    } else if (constants.range !== null) {                              // null: a distilled model is not clipped
      image = image.map(value => clipped(value, constants.range));
    }
    noisy = noisy.map((value, k) =>
      row.keep * value + row.gain * (image[k] + row.memory * (image[k] - previous[k])));
    previous = image;
    yield {noisy, image};
  }
}

const clipped = (value, limit) => Math.min(Math.max(value, -limit), limit);

/** Bring a picture, which guidance exaggerates, back into [-1, 1] (Saharia et al. 2022, section 2.3). Alpha, the last of
 *  an even number of channels, is only clipped. */
function dynamicThreshold(image, {threshold_share: share, channels}) {
  const magnitudes = image.map(Math.abs).sort(), alpha = channels % 2 ? image.length : image.length * (1 - 1 / channels);
  const limit = Math.max(magnitudes[Math.ceil(share * magnitudes.length) - 1], 1);
  return image.map((value, k) => k < alpha ? clipped(value, limit) / limit : clipped(value, 1));
}

/** A picture in [-1, 1], channel after channel → red, green, blue and alpha for every pixel, in 0…255.
 *
 *  channels: 1 for grey or 3 for colours, and one more for alpha; without it, all is opaque. */
function toPixels(picture, channels) {
  const count = picture.length / channels, pixels = new Uint8ClampedArray(4 * count).fill(255);
  const sources = {1: [0, 0, 0], 2: [0, 0, 0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels];
  sources.forEach((source, target) => {
    for (let k = 0; k < count; k++)
      pixels[4 * k + target] = (picture[source * count + k] / 2 + 0.5) * 255;     // rounds and clips
  });
  return pixels;
}
