// The one loop that takes nearly all of the time, in WebAssembly with SIMD, which every browser has had since 2023.
//
// A layer computes, for every output channel o and every position p of a picture:
//
//     out[o][p] = bias[o] + sum over channels c and taps t of weight[o][c][t] · in[c][p + offset[t]]
//
// With nine taps this is a convolution, with one tap a linear layer or a matrix product. The code below makes the bytes
// of a WebAssembly module that computes 4 output channels × 8 positions at a time, with all sums in registers.
// There is no compiler and no library: the module has one function, and each line below is one instruction or a few.

"use strict";

const PAGE_BYTES = 65536;               // of a WebAssembly memory
const MOST_PAGES = 65536;               // 4 GiB, what 32-bit addresses reach
const TILE = 8;                         // positions that are computed at once
const BLOCK = 4;                        // output channels that are computed at once

// Unsigned and signed numbers in groups of 7 bits, lowest first (LEB128), as WebAssembly writes them.
const unsigned = value => value < 128 ? [value] : [value & 127 | 128, ...unsigned(value >>> 7)];
const signed = value => value >= -64 && value < 64 ? [value & 127] : [value & 127 | 128, ...signed(value >> 7)];

const get = name => [0x20, ...unsigned(name)], set = name => [0x21, ...unsigned(name)];
const constant = value => [0x41, ...signed(value)];
const plus = [0x6a];                                                    // i32.add
const simd = code => [0xfd, ...unsigned(code)];
const at = (alignment, offset) => [alignment, ...unsigned(offset)];
const load = offset => [0x28, ...at(2, offset)];                        // i32.load
const loadVector = offset => [...simd(0), ...at(2, offset)];            // v128.load: 4 numbers
const loadSame = offset => [...simd(9), ...at(2, offset)];              // v128.load32_splat: 1 number, 4 times
const storeVector = offset => [...simd(11), ...at(2, offset)];          // v128.store
const multiply = simd(230), add = simd(228);                            // f32x4.mul, f32x4.add
const multiplyAdd = simd(261);                                          // f32x4.relaxed_madd: a·b + c
const increase = (name, amount) => [...get(name), ...amount, ...plus, ...set(name)];

/** Repeat the body until `name`, which counts down by one each time, is zero. */
const countDown = (name, body) => [
  0x03, 0x40, ...body, ...get(name), ...constant(-1), ...plus, 0x22, ...unsigned(name), 0x0d, 0, 0x0b];

/** The instructions of `layer`. fused: whether the machine's instruction for a·b + c is used. */
function layerCode(fused) {
  const [out, outStride, input, inStride, taps, tapCount, weights, step, block, bias, biasStep, blocks, channels, tiles,
    tile, inTile, outTile, channel, plane, tap, tapsLeft, weight, address] = Array.from({length: 23}, (_, k) => k);
  const sums = Array.from({length: 2 * BLOCK}, (_, k) => 23 + k), left = 31, right = 32, factor = 33;
  const sumOf = (sum, picture) => fused
    ? [...get(factor), ...get(picture), ...get(sum), ...multiplyAdd, ...set(sum)]
    : [...get(factor), ...get(picture), ...multiply, ...get(sum), ...add, ...set(sum)];
  const rows = [0, 1, 2, 3];

  const oneTap = [
    ...get(plane), ...get(tap), ...load(0), ...plus, ...set(address),
    ...get(address), ...loadVector(0), ...set(left), ...get(address), ...loadVector(16), ...set(right),
    ...rows.flatMap(row => [...get(weight), ...loadSame(4 * row), ...set(factor),
                            ...sumOf(sums[2 * row], left), ...sumOf(sums[2 * row + 1], right)]),
    ...increase(weight, get(step)), ...increase(tap, constant(4))];
  const oneChannel = [
    ...get(taps), ...set(tap), ...get(tapCount), ...set(tapsLeft), ...countDown(tapsLeft, oneTap),
    ...increase(plane, get(inStride))];
  const oneTile = [
    ...rows.flatMap(row => [...get(bias), ...loadSame(4 * row), 0x22, ...unsigned(sums[2 * row]),
                            ...set(sums[2 * row + 1])]),
    ...get(weights), ...set(weight), ...get(inTile), ...set(plane), ...get(channels), ...set(channel),
    ...countDown(channel, oneChannel),
    ...get(outTile), ...set(address),
    ...rows.flatMap(row => [...get(address), ...get(sums[2 * row]), ...storeVector(0),
                            ...get(address), ...get(sums[2 * row + 1]), ...storeVector(16),
                            ...increase(address, get(outStride))]),
    ...increase(inTile, constant(4 * TILE)), ...increase(outTile, constant(4 * TILE))];
  return countDown(blocks, [
    ...get(tiles), ...set(tile), ...get(input), ...set(inTile), ...get(out), ...set(outTile),
    ...countDown(tile, oneTile),
    ...rows.flatMap(() => increase(out, get(outStride))),
    ...increase(weights, get(block)), ...increase(bias, get(biasStep))]);
}

/** The bytes of a module that imports a memory and exports `layer`, a function of 14 integers. */
function moduleBytes(fused) {
  const text = word => [word.length, ...new TextEncoder().encode(word)];
  const section = (number, content) => [number, ...unsigned(content.length), ...content];
  const integer = 0x7f, vector = 0x7b, parameters = 14;
  const body = [2, 9, integer, 11, vector, ...layerCode(fused), 0x0b];
  return new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, parameters, ...Array(parameters).fill(integer), 0]),
    ...section(2, [1, ...text("page"), ...text("memory"), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...text("layer"), 0, 0]),
    ...section(10, [1, ...unsigned(body.length), ...body])]);
}

/** A memory of float32 numbers that is given out from the bottom up, and the function that computes in it. */
class Heap {
  constructor() {
    this.memory = new WebAssembly.Memory({initial: 1, maximum: MOST_PAGES});
    const fused = moduleBytes(true), bytes = WebAssembly.validate(fused) ? fused : moduleBytes(false);
    this.layer = new WebAssembly.Instance(new WebAssembly.Module(bytes), {page: {memory: this.memory}}).exports.layer;
    this.numbers = new Float32Array(this.memory.buffer);
    this.top = 0;                       // index of the first free number; set it back to free what came later
  }

  /** Reserve `count` numbers, whose values are arbitrary. → the index of the first */
  reserve(count) {
    const start = this.top;
    this.top += Math.ceil(count / TILE) * TILE;
    if (this.top + TILE > this.numbers.length) {                        // the last tile may be read beyond its end
      const missing = Math.ceil((this.top * 1.25 + TILE - this.numbers.length) * 4 / PAGE_BYTES);
      try {
        this.memory.grow(missing);
      } catch {
        throw new Error("This device has too little memory for the model.");
      }
      this.numbers = new Float32Array(this.memory.buffer);
    }
    return start;
  }

  /** Copy numbers into the memory. → the index of the first */
  keep(numbers) {
    const start = this.reserve(numbers.length);
    this.numbers.set(numbers, start);
    return start;
  }
}
