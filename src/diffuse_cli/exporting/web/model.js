// What the page holds of a model: the shapes of its tensors, and their numbers in base64.
//
// A tensor of two or more dimensions is written as one float32 for each row, its scale, and one 16-bit integer for each
// number, which is multiplied by the scale of its row. Any other tensor is written as float32.

"use strict";

const CHUNK = 1 << 22;                  // letters that are decoded at once, a multiple of 4

/** Base64 → bytes. The browser's `atob` makes a text of the bytes, so a large model is decoded in chunks. */
function bytesOf(base64) {
  const bytes = new Uint8Array(base64.length / 4 * 3 - (base64.match(/=*$/)[0].length));
  for (let start = 0; start < base64.length; start += CHUNK) {
    const text = atob(base64.slice(start, start + CHUNK)), place = start / 4 * 3;
    for (let k = 0; k < text.length; k++) bytes[place + k] = text.charCodeAt(k);
  }
  return bytes;
}

/** shapes: name → sizes, in the order of the bytes. → name → {shape, numbers}, in float32 */
function tensorsOf(shapes, bytes) {
  let place = 0;
  const next = (Kind, count) => {
    const part = bytes.slice(place, place += count * Kind.BYTES_PER_ELEMENT);
    return new Kind(part.buffer);
  };
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => {
    const count = shape.reduce((a, b) => a * b, 1), row = count / shape[0];
    if (shape.length < 2) return [name, {shape, numbers: next(Float32Array, count)}];
    const scales = next(Float32Array, shape[0]);
    return [name, {shape, numbers: Float32Array.from(next(Int16Array, count), (value, k) => value * scales[Math.floor(k / row)])}];
  }));
}
