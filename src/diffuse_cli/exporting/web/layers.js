// The layers of which the networks are made, for one picture at a time.
//
// Two kinds of tensors live in the heap. A map is a picture of several channels with a border of zeros around it, so
// that a convolution reads neighbours without asking where the picture ends; after a layer, the border holds leftovers.
// A matrix is rows (channels) of columns (positions), each row padded to a whole number of tiles.

"use strict";

const upTo = (value, multiple) => Math.ceil(value / multiple) * multiple;
const POWERS = Float64Array.from({length: 256}, (_, k) => 2 ** (k - 128));
const silu = x => x / (1 + exp(-x));

/** e^x, to 7 digits: a power of two times the first terms of the series. It takes half of the time of Math.exp. */
function exp(x) {
  const turns = Math.min(Math.max(x * Math.LOG2E, -127), 127), whole = Math.floor(turns + 0.5);
  const f = (turns - whole) * Math.LN2;
  return POWERS[whole + 128] * (1 + f * (1 + f * (1 / 2 + f * (1 / 6 + f * (1 / 24 + f * (1 / 120 + f * (1 / 720)))))));
}

class Layers {
  /** shape: the `network` of a model's configuration. tensors: name → {shape, numbers}, in float32. */
  constructor(shape, tensors) {
    this.shape = shape;
    this.heap = new Heap();
    this.zeros = this.heap.keep(new Float32Array(TILE));
    this.oneTap = this.heap.keep(new Float32Array(1));                  // the offset 0
    this.tensors = {};
    this.layers = {};
    for (const [name, tensor] of Object.entries(tensors)) {
      const layer = name.replace(/\.weight$/, "");
      if (tensor.shape.length >= 2 && layer !== name && !/\.shared|relative_attention_bias/.test(layer))
        this.layers[layer] = this.packed(tensor, tensors[`${layer}.bias`]);
      else this.tensors[name] = tensor.numbers;
    }
  }

  /** A layer's weights, ordered as the kernel reads them: (outputs / 4, inputs, taps, 4), with zeros at the end. */
  packed({shape: [outputs, inputs, ...kernel], numbers}, bias) {
    const taps = kernel.reduce((a, b) => a * b, 1), row = inputs * taps;
    const weights = new Float32Array(upTo(outputs, BLOCK) * row), biases = new Float32Array(upTo(outputs, BLOCK));
    for (let o = 0; o < outputs; o++)
      for (let k = 0; k < row; k++)
        weights[((o - o % BLOCK) * row) + k * BLOCK + o % BLOCK] = numbers[o * row + k];
    if (bias) biases.set(bias.numbers);
    return {outputs, inputs, taps, weights: this.heap.keep(weights), biases: this.heap.keep(biases)};
  }

  // ── Tensors ────────────────────────────────────────────────────────────────────────────────────────────────────

  map(channels, height, width) {
    const row = width + 2, plane = upTo((height + 2) * row + TILE, TILE);
    const start = this.heap.reserve(upTo(channels, BLOCK) * plane);
    return {channels, height, width, row, plane, start, first: start + row + 1};
  }

  matrix(rows, columns) {
    const stride = upTo(columns, TILE);
    return {rows, columns, stride, start: this.heap.reserve((upTo(rows, BLOCK) + BLOCK) * stride)};
  }

  /** Compute `body`, which returns one tensor made by `result`, and free all other tensors that it made. */
  freeing(result, body) {
    const top = this.heap.top;
    body(result);
    this.heap.top = top;
    return result;
  }

  // ── Layers ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A convolution of 3×3 or 1×1: map → map `out`. */
  convolve(map, name, out) {
    const {outputs, inputs, taps, weights, biases} = this.layers[name], top = this.heap.top;
    let offsets = this.oneTap;
    if (taps === 9) {
      offsets = this.heap.reserve(taps);
      const numbers = new Int32Array(this.heap.memory.buffer, 4 * offsets, taps);
      numbers.forEach((_, tap) => { numbers[tap] = 4 * ((Math.floor(tap / 3) - 1) * map.row + tap % 3 - 1); });
    }
    this.heap.layer(
      4 * out.first, 4 * out.plane, 4 * map.first, 4 * map.plane, 4 * offsets, taps, 4 * weights, 4 * BLOCK,
      4 * BLOCK * inputs * taps, 4 * biases, 4 * BLOCK, upTo(outputs, BLOCK) / BLOCK, inputs,
      Math.ceil(((map.height - 1) * map.row + map.width) / TILE));
    this.heap.top = top;
    return out;
  }

  /** A linear layer at every position: matrix (inputs, columns) → (outputs, columns). */
  linear(matrix, name) {
    const {outputs, inputs, weights, biases} = this.layers[name], out = this.matrix(outputs, matrix.columns);
    this.heap.layer(
      4 * out.start, 4 * out.stride, 4 * matrix.start, 4 * matrix.stride, 4 * this.oneTap, 1, 4 * weights, 4 * BLOCK,
      4 * BLOCK * inputs, 4 * biases, 4 * BLOCK, upTo(outputs, BLOCK) / BLOCK, inputs, out.stride / TILE);
    return out;
  }

  /** A linear layer of one vector. → Float32Array */
  linearOfVector(vector, name) {
    const {outputs, inputs, weights, biases} = this.layers[name], {numbers} = this.heap;
    const out = new Float32Array(outputs);
    for (let o = 0; o < outputs; o++) {
      let sum = numbers[biases + o], place = weights + (o - o % BLOCK) * inputs + o % BLOCK;
      for (let i = 0; i < inputs; i++, place += BLOCK) sum += numbers[place] * vector[i];
      out[o] = sum;
    }
    return out;
  }

  /** Group normalisation, then ·(1 + scale) + shift, then SiLU if `active`: map → `out`, a map or a matrix of pixels. */
  normalise(map, name, out, {scale, shift, active = false} = {}) {
    const {numbers} = this.heap, [weight, bias] = [this.tensors[`${name}.weight`], this.tensors[`${name}.bias`]];
    const size = map.channels / this.shape.groups, count = size * map.height * map.width;
    const isMap = out.plane !== undefined, plane = isMap ? out.plane : out.stride, row = isMap ? out.row : map.width;
    if (isMap) numbers.fill(0, out.start, out.start + out.channels * plane);
    for (let group = 0; group < this.shape.groups; group++) {
      let sum = 0, squares = 0;
      for (let c = group * size; c < (group + 1) * size; c++)
        for (let y = 0, p = map.first + c * map.plane; y < map.height; y++, p += map.row)
          for (let x = p; x < p + map.width; x++) {
            const value = numbers[x];
            sum += value;
            squares += value * value;
          }
      const mean = sum / count, inverse = 1 / Math.sqrt(Math.max(squares / count - mean * mean, 0) + 1e-5);
      for (let c = group * size; c < (group + 1) * size; c++) {
        const more = scale ? 1 + scale[c] : 1, factor = inverse * weight[c] * more;
        const constant = (bias[c] - mean * inverse * weight[c]) * more + (shift ? shift[c] : 0);
        const to = (isMap ? out.first : out.start) + c * plane;
        for (let y = 0; y < map.height; y++)
          for (let x = 0, p = map.first + c * map.plane + y * map.row, q = to + y * row; x < map.width; x++, p++, q++) {
            const value = numbers[p] * factor + constant;
            numbers[q] = active ? silu(value) : value;
          }
      }
    }
    return out;
  }

  /** Half the size, by means of 2×2 pixels, or twice the size, by repeating pixels: map → map `out`. */
  resample(map, out) {
    const {numbers} = this.heap, halves = out.width < map.width;
    numbers.fill(0, out.start, out.start + out.channels * out.plane);
    for (let c = 0; c < map.channels; c++)
      for (let y = 0; y < out.height; y++)
        for (let x = 0; x < out.width; x++) {
          const from = map.first + c * map.plane;
          const p = halves ? from + 2 * y * map.row + 2 * x : from + (y >> 1) * map.row + (x >> 1);
          numbers[out.first + c * out.plane + y * out.row + x] = halves
            ? (numbers[p] + numbers[p + 1] + numbers[p + map.row] + numbers[p + map.row + 1]) / 4 : numbers[p];
        }
    return out;
  }

  /** softmax(scale·qᵀk + bias)·v for each head: matrices (C, L), (C, K), (C, K) → (C, L). bias(head, key, query). */
  attend(query, key, value, headDim, {scale = 1 / Math.sqrt(headDim), bias = null} = {}) {
    const out = this.matrix(query.rows, query.columns), keys = key.columns;
    return this.freeing(out, () => {
      const width = upTo(value.rows, BLOCK) + BLOCK, turned = this.heap.reserve(keys * width);
      const scores = this.matrix(keys, query.columns), {numbers} = this.heap, {stride} = scores;
      for (let c = 0; c < value.rows; c++)
        for (let k = 0; k < keys; k++) numbers[turned + k * width + c] = numbers[value.start + c * value.stride + k];
      for (let first = 0, head = 0; first < query.rows; first += headDim, head++) {
        this.heap.layer(
          4 * scores.start, 4 * stride, 4 * (query.start + first * query.stride), 4 * query.stride,
          4 * this.oneTap, 1, 4 * (key.start + first * key.stride), 4 * key.stride, 4 * BLOCK, 4 * this.zeros, 0,
          upTo(keys, BLOCK) / BLOCK, headDim, stride / TILE);
        this.softmax(scores, scale, bias && ((k, l) => bias(head, k, l)));
        this.heap.layer(
          4 * (out.start + first * out.stride), 4 * out.stride, 4 * scores.start, 4 * stride,
          4 * this.oneTap, 1, 4 * (turned + first), 4 * width, 4 * BLOCK, 4 * this.zeros, 0,
          upTo(headDim, BLOCK) / BLOCK, keys, stride / TILE);
      }
    });
  }

  /** The softmax of every column of scores (K, L), in place. */
  softmax(scores, scale, bias) {
    const {numbers} = this.heap, {rows, columns, stride, start} = scores;
    const largest = new Float32Array(columns).fill(-Infinity), sums = new Float32Array(columns);
    for (let k = 0; k < rows; k++)
      for (let l = 0, p = start + k * stride; l < columns; l++, p++) {
        numbers[p] = numbers[p] * scale + (bias ? bias(k, l) : 0);
        if (numbers[p] > largest[l]) largest[l] = numbers[p];
      }
    for (let k = 0; k < rows; k++)
      for (let l = 0, p = start + k * stride; l < columns; l++, p++) {
        numbers[p] = exp(numbers[p] - largest[l]);
        sums[l] += numbers[p];
      }
    for (let k = 0; k < rows; k++)
      for (let l = 0, p = start + k * stride; l < columns; l++, p++) numbers[p] /= sums[l];
  }

  /** Each position divided by the root of the mean square of its features, times the weight: matrix → matrix. */
  rootMeanSquare(matrix, name) {
    const out = this.matrix(matrix.rows, matrix.columns), weight = this.tensors[`${name}.weight`];
    const {numbers} = this.heap;
    for (let p = 0; p < matrix.columns; p++) {
      let squares = 0;
      for (let c = 0; c < matrix.rows; c++) squares += numbers[matrix.start + c * matrix.stride + p] ** 2;
      const factor = 1 / Math.sqrt(squares / matrix.rows + 0.1);
      for (let c = 0; c < matrix.rows; c++)
        numbers[out.start + c * out.stride + p] = numbers[matrix.start + c * matrix.stride + p] * factor * weight[c];
    }
    return out;
  }

  /** Add `other` to a tensor of the same shape, in place. */
  addTo(tensor, other) {
    const {numbers} = this.heap, length = (tensor.channels ?? tensor.rows) * (tensor.plane ?? tensor.stride);
    for (let k = 0; k < length; k++) numbers[tensor.start + k] += numbers[other.start + k];
    return tensor;
  }
}
