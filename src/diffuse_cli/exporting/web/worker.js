// Draws in a thread of its own, so that the page answers while it computes. Messages:
//
//     {model}                            first: what the page holds; answered by {ready: true}
//     {request: {prompt, negative, seed, steps, guidance, sampler}}      one picture; answered by {step, pixels,
//                                        finished} for its noise, which is step 0, and after each step
//     {error}                            answers either, if it failed

"use strict";

let model = null;

onmessage = ({data}) => {
  try {
    if (data.model) {
      model = openModel(data.model);
      postMessage({ready: true});
    } else {
      draw(data.request);
    }
  } catch (error) {
    const old = typeof WebAssembly === "undefined" || error instanceof WebAssembly.CompileError;
    postMessage({error: old ? "This browser is too old for the page. It needs WebAssembly with SIMD." : error.message});
  }
};

/** The networks and the tokenizer of what the page holds. */
function openModel({network, shapes, weights, tokenizer, constants}) {
  const layers = new Layers(network, tensorsOf(shapes, bytesOf(weights)));
  return {layers, constants, tokenizer: tokenizer && new Tokenizer(tokenizer.model)};
}

/** Draw the picture of a request, and post its pixels before the first step and after each. */
function draw({prompt, negative, seed, steps, guidance, sampler}) {
  const {layers, constants, tokenizer} = model;
  const noise = noiseOf(seed, layers.shape.channels * layers.shape.height * layers.shape.width);
  let step = 0;
  const post = noisy => {
    const pixels = toPixels(noisy, layers.shape.channels);
    postMessage({step, pixels, finished: step === steps}, [pixels.buffer]);
    step += 1;
  };
  post(noise);
  const [text, without] = [prompt, negative].map(words => tokenizer && encodeText(layers, tokenizer.encode(words)));
  const table = stepTable(constants, steps, {guided: guidance !== 1, sampler});
  for (const {noisy} of generate(layers, constants, table, {noise, text, negative: without, guidance})) post(noisy);
}
