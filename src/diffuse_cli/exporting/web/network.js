// The text encoder and the U-Net: what text_encoder.py, unet.py and blocks.py of the Python program compute.
//
// `layers` is a Layers with the model's weights; `shape` in it is the network's configuration. A layer is called by its
// name in the model's file.

"use strict";

const NEAR_BUCKETS = 8, FAR_BUCKET_EDGES = [12, 16, 23, 32, 46, 64, 91];       // distances between words that share a bias
const HALF_OF_BUCKETS = NEAR_BUCKETS + 1 + FAR_BUCKET_EDGES.length;
const PAD = 0, PADDING_BIAS = -1e9;

// ── The text encoder: T5 ────────────────────────────────────────────────────────────────────────────────────────────

/** Tokens of a caption → the features of its positions: a copy outside the heap, for `predict`. */
function encodeText(layers, tokens) {
  const {width, layers: depth, heads} = layers.shape.text, {heap} = layers, top = heap.top;
  const stack = "text_encoder.encoder", table = layers.tensors["text_encoder.shared.weight"];
  const places = layers.tensors[`${stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`];
  const bias = (head, key, query) =>
    tokens[key] === PAD ? PADDING_BIAS : places[bucketOf(key - query) * heads + head];

  const text = layers.matrix(width, tokens.length);
  tokens.forEach((token, position) => {
    for (let c = 0; c < width; c++) heap.numbers[text.start + c * text.stride + position] = table[token * width + c];
  });
  for (let block = 0; block < depth; block++) {
    const attention = `${stack}.block.${block}.layer.0`, perceptron = `${stack}.block.${block}.layer.1`;
    layers.freeing(text, () => {
      const positions = layers.rootMeanSquare(text, `${attention}.layer_norm`);
      const [query, key, value] = ["q", "k", "v"].map(part => layers.linear(positions, `${attention}.SelfAttention.${part}`));
      const attended = layers.attend(query, key, value, width / heads, {scale: 1, bias});
      layers.addTo(text, layers.linear(attended, `${attention}.SelfAttention.o`));
    });
    layers.freeing(text, () => {
      const positions = layers.rootMeanSquare(text, `${perceptron}.layer_norm`);
      const [gate, hidden] = ["wi_0", "wi_1"].map(part => layers.linear(positions, `${perceptron}.DenseReluDense.${part}`));
      for (let k = 0; k < gate.rows * gate.stride; k++)
        heap.numbers[hidden.start + k] *= gelu(heap.numbers[gate.start + k]);
      layers.addTo(text, layers.linear(hidden, `${perceptron}.DenseReluDense.wo`));
    });
  }
  const {start, rows, stride} = layers.rootMeanSquare(text, `${stack}.final_layer_norm`);
  heap.top = top;
  return heap.numbers.slice(start, start + rows * stride);
}

/** The bucket of a distance between two words, key - query. */
function bucketOf(distance) {
  const near = Math.abs(distance), far = FAR_BUCKET_EDGES.filter(edge => near >= edge).length;
  return Math.min(near, NEAR_BUCKETS) + far + (distance > 0 ? HALF_OF_BUCKETS : 0);
}

const gelu = x => x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

// ── The U-Net ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** The U-Net's answer to a noisy picture (C·H·W numbers) at a time. text: of `encodeText`, or null. → C·H·W numbers */
function predict(layers, noisy, time, text) {
  const {shape, heap} = layers, {height, width, widths, depths, attention, channels} = shape, top = heap.top;
  const words = text && layers.matrix(shape.text.width, text.length / shape.text.width);
  if (text) {
    words.columns = TEXT_LENGTH;
    heap.numbers.set(text, words.start);
  }
  const embedding = embed(layers, time, words), context = {embedding, words};
  const attend = (features, level, name) =>
    attention[level] === "none" ? features : attentionBlock(layers, features, name, attention[level], context);

  let features = layers.map(channels, height, width);
  write(layers, features, noisy);
  features = layers.convolve(features, "unet.conv_in", layers.map(widths[0], height, width));
  const skips = [features];
  for (let level = 0; level < widths.length; level++) {
    const block = `unet.down_blocks.${level}`;
    for (let i = 0; i < depths[level]; i++) {
      features = resBlock(layers, features, `${block}.resnets.${i}`, widths[level], context);
      skips.push(features = attend(features, level, `${block}.attentions.${i}`));
    }
    if (level < widths.length - 1)
      skips.push(features = resBlock(layers, features, `${block}.downsamplers.0`, widths[level], context, 0.5));
  }

  const last = widths.at(-1);
  features = resBlock(layers, features, "unet.mid_block.resnets.0", last, context);
  features = attentionBlock(layers, features, "unet.mid_block.attentions.0", "full", context);
  features = resBlock(layers, features, "unet.mid_block.resnets.1", last, context);

  for (let level = widths.length - 1; level >= 0; level--) {
    const block = `unet.up_blocks.${widths.length - 1 - level}`;
    for (let i = 0; i <= depths[level]; i++) {
      features = resBlock(layers, joined(layers, features, skips.pop()), `${block}.resnets.${i}`, widths[level], context);
      features = attend(features, level, `${block}.attentions.${i}`);
    }
    if (level > 0) features = resBlock(layers, features, `${block}.upsamplers.0`, widths[level], context, 2);
  }

  const hidden = layers.map(widths[0], height, width);
  layers.normalise(features, "unet.conv_norm_out", hidden, {active: true});
  const answer = layers.convolve(hidden, "unet.conv_out", layers.map(shape.out_channels, height, width));
  heap.top = top;
  return read(layers, answer, channels);                                // further channels hold the learned variance
}

/** Time and text → the vector that modulates every residual block, after SiLU. */
function embed(layers, time, words) {
  const half = layers.shape.widths[0] / 2, sinusoids = new Float32Array(2 * half);
  for (let i = 0; i < half; i++) {
    const angle = Math.fround(time * Math.fround(Math.exp(-Math.log(10000) * i / half)));
    [sinusoids[i], sinusoids[half + i]] = [Math.cos(angle), Math.sin(angle)];
  }
  const hidden = layers.linearOfVector(sinusoids, "unet.time_embedding.linear_1").map(silu);
  const embedding = layers.linearOfVector(hidden, "unet.time_embedding.linear_2");
  if (words) pooled(layers, words).forEach((value, k) => { embedding[k] += value; });
  return embedding.map(silu);
}

/** The summary of a caption: the mean of its positions, as the only query, attends to itself and to all of them. */
function pooled(layers, words) {
  const {tensors, heap} = layers, name = "unet.add_embedding", width = words.rows, count = words.columns;
  const positions = layers.matrix(width, count + 1), mean = layers.matrix(width, 1), column = new Float32Array(width);
  const place = tensors[`${name}.pool.positional_embedding`], top = heap.top;
  for (let p = 0; p < count; p++) {
    for (let c = 0; c < width; c++) column[c] = heap.numbers[words.start + c * words.stride + p];
    layerNorm(layers, column, `${name}.norm1`)
      .forEach((value, c) => { heap.numbers[positions.start + c * positions.stride + p + 1] = value; });
  }
  for (let c = 0; c < width; c++) {
    const row = positions.start + c * positions.stride;
    const sum = heap.numbers.subarray(row + 1, row + 1 + count).reduce((a, b) => a + b, 0);
    heap.numbers[row] = heap.numbers[mean.start + c * mean.stride] = sum / count + place[c];
  }
  const query = layers.linear(mean, `${name}.pool.q_proj`);
  const [key, value] = ["k", "v"].map(part => layers.linear(positions, `${name}.pool.${part}_proj`));
  const attended = layers.attend(query, key, value, width / layers.shape.text.heads);
  const summary = column.map((_, c) => heap.numbers[attended.start + c * attended.stride]);
  heap.top = top;
  return layerNorm(layers, layers.linearOfVector(summary, `${name}.proj`), `${name}.norm2`);
}

/** A vector with mean 0 and variance 1, times the weight, plus the bias. */
function layerNorm(layers, vector, name) {
  const weight = layers.tensors[`${name}.weight`], bias = layers.tensors[`${name}.bias`];
  const mean = vector.reduce((a, b) => a + b, 0) / vector.length;
  const variance = vector.reduce((sum, value) => sum + (value - mean) ** 2, 0) / vector.length;
  return vector.map((value, k) => (value - mean) / Math.sqrt(variance + 1e-5) * weight[k] + bias[k]);
}

/** Two convolutions, modulated by the embedding, and a residual connection around both. scale: 0.5, 1 or 2, of the size. */
function resBlock(layers, features, name, width, {embedding}, scale = 1) {
  const {channels} = features, height = features.height * scale, sideways = features.width * scale;
  return layers.freeing(layers.map(width, height, sideways), out => {
    let hidden = layers.normalise(features, `${name}.norm1`, layers.map(channels, features.height, features.width),
                                  {active: true});
    if (scale !== 1) {
      hidden = layers.resample(hidden, layers.map(channels, height, sideways));
      features = layers.resample(features, layers.map(channels, height, sideways));
    }
    hidden = layers.convolve(hidden, `${name}.conv1`, layers.map(width, height, sideways));
    const modulation = layers.linearOfVector(embedding, `${name}.time_emb_proj`);
    hidden = layers.normalise(hidden, `${name}.norm2`, layers.map(width, height, sideways), {
      scale: modulation.subarray(0, width), shift: modulation.subarray(width), active: true});
    layers.convolve(hidden, `${name}.conv2`, out);
    const shortcut = `${name}.conv_shortcut`;
    layers.addTo(out, layers.layers[shortcut]
      ? layers.convolve(features, shortcut, layers.map(width, height, sideways)) : features);
  });
}

/** Pixels attend to the text and, if `kind` is "full", to each other, in one softmax; the result is added to the map. */
function attentionBlock(layers, features, name, kind, {words}) {
  const {channels, height, width} = features, count = height * width, {heap} = layers;
  return layers.freeing(layers.map(channels, height, width), out => {
    const pixels = layers.normalise(features, `${name}.group_norm`, layers.matrix(channels, count));
    const sources = [...words ? [[words, "add_k_proj", "add_v_proj"]] : [],
                     ...kind === "full" ? [[pixels, "to_k", "to_v"]] : []];
    const [key, value] = [1, 2].map(part =>
      sideBySide(layers, sources.map(source => layers.linear(source[0], `${name}.${source[part]}`))));
    const query = layers.linear(pixels, `${name}.to_q`);
    const attended = layers.linear(layers.attend(query, key, value, layers.shape.head_dim), `${name}.to_out.0`);
    for (let c = 0; c < channels; c++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
          const place = c * out.plane + y * out.row + x;
          heap.numbers[out.first + place] = heap.numbers[features.first + place]
            + heap.numbers[attended.start + c * attended.stride + y * width + x];
        }
  });
}

/** Matrices with the same rows → one with the columns of all. */
function sideBySide(layers, matrices) {
  const columns = matrices.reduce((sum, matrix) => sum + matrix.columns, 0);
  const out = layers.matrix(matrices[0].rows, columns), {numbers} = layers.heap;
  let first = 0;
  for (const {rows, columns: count, start, stride} of matrices) {
    for (let c = 0; c < rows; c++)
      numbers.copyWithin(out.start + c * out.stride + first, start + c * stride, start + c * stride + count);
    first += count;
  }
  return out;
}

/** Maps of the same size → one with the channels of both. */
function joined(layers, map, other) {
  const out = layers.map(map.channels + other.channels, map.height, map.width), {numbers} = layers.heap;
  numbers.copyWithin(out.start, map.start, map.start + map.channels * map.plane);
  numbers.copyWithin(out.start + map.channels * map.plane, other.start, other.start + other.channels * other.plane);
  return out;
}

/** Put the pixels of a picture, channel after channel, into a map with a border of zeros. */
function write(layers, map, picture) {
  const {numbers} = layers.heap, {channels, height, width} = map;
  numbers.fill(0, map.start, map.start + channels * map.plane);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < height; y++)
      numbers.set(picture.subarray((c * height + y) * width, (c * height + y + 1) * width),
                  map.first + c * map.plane + y * map.row);
}

/** The pixels of a map's first channels, channel after channel. */
function read(layers, map, channels) {
  const {numbers} = layers.heap, {height, width} = map, picture = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < height; y++) {
      const start = map.first + c * map.plane + y * map.row;
      picture.set(numbers.subarray(start, start + width), (c * height + y) * width);
    }
  return picture;
}
