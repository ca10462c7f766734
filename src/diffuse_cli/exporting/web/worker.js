// Draws in a thread of its own, so that the page answers while it computes. Messages:
//
//     {model}                            first: what the page holds; answered by {ready: true}
//     {request: {prompt, negative, seed, steps, guidance, sampler}}      one picture; answered after each step by
//                                        {step, steps, pixels}, at last with {finished: true}
//     {error}                            answers either, if it failed

"use strict";

let model = null;

onmessage = async ({data}) => {
  try {
    if (data.model) {
      model = openModel(data.model);
      postMessage({ready: true});
    } else {
      await draw(data.request);
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

async function draw(request) {
  const {resolution} = model.constants;
  let step = 0;
  for (const {noisy} of pictures(model, request)) {
    step += 1;
    const pixels = toPixels(noisy), finished = step === request.steps;
    postMessage({step, steps: request.steps, pixels, resolution, finished}, [pixels.buffer]);
  }
}

/** The picture of a request after every step: a generator of {noisy, image}. */
function pictures({layers, constants, tokenizer}, {prompt, negative, seed, steps, guidance, sampler}) {
  const [text, without] = [prompt, negative].map(words => tokenizer && encodeText(layers, tokenizer.encode(words)));
  return generate(layers, constants, stepTable(constants, steps, {guided: guidance !== 1, sampler}), {
    noise: noiseOf(seed, constants.channels * constants.resolution ** 2), text, negative: without, guidance});
}
