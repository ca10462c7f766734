"use strict";

const byId = id => document.getElementById(id), form = byId("form"), fields = form.elements;
const model = JSON.parse(byId("model").textContent), {constants, samplers, words} = model;
const LARGEST_SEED = 2n ** 63n - 2n, MOST_WORKERS = 4, MOST_BYTES = 2 ** 28;    // of the weights of all workers together
const MOST_LETTERS = 2000;              // of a value in the address

// ── Threads: each holds the model, and draws one picture at a time ──────────────────────────────────────────────────

const workerCode = URL.createObjectURL(new Blob([byId("worker").textContent], {type: "text/javascript"}));
const weights = byId("weights").textContent;
const mostWorkers = Math.max(1, Math.min(
  MOST_WORKERS, Math.ceil((navigator.hardwareConcurrency ?? 1) / 2), Math.floor(MOST_BYTES / weights.length)));
let workers = [];

/** Start a thread that holds the model; the promise is of the thread when it is ready. */
function startWorker() {
  const worker = new Worker(workerCode), answers = {};
  worker.onmessage = ({data}) => data.error ? answers.fail(new Error(data.error)) : answers.next(data);
  worker.onerror = event => answers.fail(new Error(event.message || "This browser does not let the page compute."));
  worker.ask = (message, next) => new Promise((resolve, fail) => {
    Object.assign(answers, {fail, next: data => { next(data); if (data.ready || data.finished) resolve(); }});
    worker.postMessage(message);
  });
  return worker.ask({model: {...model, weights}}, () => {}).then(() => worker);
}

function stopWorkers() {
  workers.forEach(async started => (await started.catch(() => null))?.terminate());
  workers = [];
}

// ── Drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

let run = null;                         // what is being drawn, or was drawn last

function say(text) {
  byId("status").textContent = text;
}

/** Read the form; say what is wrong with it, or return what to draw. */
function settings() {
  if (!form.reportValidity()) return null;
  const seed = BigInt(fields.seed.value), count = Number(fields.count.value);
  if (seed + BigInt(count) - 1n > LARGEST_SEED) {
    say(`The largest seed is ${LARGEST_SEED}.`);
    return null;
  }
  return {prompt: fields.prompt.value, negative: fields.negative.value, seed, count, sampler: fields.sampler.value,
          steps: Number(fields.steps.value), guidance: Number(fields.guidance.value)};
}

async function draw() {
  const chosen = settings();
  if (!chosen) return;
  const current = run = {pictures: [], stopped: false}, started = performance.now(), {count, steps} = chosen;
  remember(chosen);
  byId("film").hidden = true;
  byId("draw").textContent = "Stop";
  byId("gallery").replaceChildren();
  for (let k = 0; k < count; k++) current.pictures.push(figure({...chosen, seed: chosen.seed + BigInt(k)}));
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1), waiting = [...current.pictures];
  const tell = () => {
    const done = current.pictures.reduce((sum, {frames}) => sum + Math.max(0, frames.length - 1), 0);
    say(`Drawing, step ${done} of ${count * steps}, ${seconds()} s`);
  };
  const work = async number => {
    const worker = await (workers[number] ??= startWorker());
    for (let picture; !current.stopped && (picture = waiting.shift());)
      await worker.ask({request: picture.request}, data => { picture.show(data); tell(); });
  };
  say("Drawing …");
  try {
    await Promise.all(Array.from({length: Math.min(count, mostWorkers)}, (_, number) => work(number)));
    say(`${count === 1 ? "1 picture" : `${count} pictures`} in ${seconds()} s. ${unknownWords(chosen.prompt)}`);
    const film = byId("film").querySelector("input");
    Object.assign(film, {max: steps, value: steps});
    byId("film").hidden = false;
  } catch (error) {
    stopWorkers();
    say(error.message);
  }
  byId("draw").textContent = "Draw";
  current.stopped = true;
}

function stop() {
  if (!run || run.stopped) return;
  run.stopped = true;
  stopWorkers();
  byId("draw").textContent = "Draw";
  say("Stopped.");
}

/** A picture in the gallery, still empty. → its request, its frames, and the function that shows an answer */
function figure(request) {
  const box = document.createElement("figure"), canvas = document.createElement("canvas");
  const {width, height} = model.network, label = document.createElement("span"), save = document.createElement("button");
  Object.assign(canvas, {width, height});
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${request.prompt || "A picture"}, seed ${request.seed}`);
  label.textContent = `seed ${request.seed}`;
  Object.assign(save, {type: "button", textContent: "Save PNG", hidden: true, onclick: () => saveAs(canvas, request)});
  const caption = document.createElement("figcaption");
  caption.append(label, save);
  box.append(canvas, caption);
  byId("gallery").append(box);
  const frames = [], paint = step => canvas.getContext("2d").putImageData(frames[step], 0, 0);
  const show = ({pixels, step, finished}) => {
    frames.push(new ImageData(pixels, width));
    paint(step);
    save.hidden = !finished;
  };
  return {request, frames, paint, show};
}

function saveAs(canvas, {prompt, seed}) {
  const name = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "picture";
  canvas.toBlob(blob => {
    const link = document.createElement("a");
    Object.assign(link, {href: URL.createObjectURL(blob), download: `${name}-${seed}.png`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

/** A sentence about the words of a prompt that no caption had; empty if there is none. */
function unknownWords(prompt) {
  const known = new Set(words), parts = prompt.toLowerCase().split(/\s+/u);
  const unknown = parts.map(word => word.replace(/^[.,;:!?"'()[\]{}]+|[.,;:!?"'()[\]{}]+$/g, "")).filter(word => word && !known.has(word));
  return words.length && unknown.length ? `The model never saw: ${[...new Set(unknown)].slice(0, 8).join(", ")}.` : "";
}

// ── The form ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Keep the settings in the address, so that a link draws the same pictures. */
function remember({prompt, negative, seed, count, sampler, steps, guidance}) {
  history.replaceState(null, "", `#${new URLSearchParams({prompt, negative, seed, count, sampler, steps, guidance})}`);
}

/** Fill the form from the model and from the address. → whether the address asked for pictures */
function fill() {
  const hasText = constants.text !== null, defaults = Object.entries(samplers);
  byId("prompt-row").hidden = !hasText;
  byId("more").hidden = constants.distilled;
  fields.sampler.replaceChildren(...defaults.map(([name]) => new Option(name)));
  fields.steps.value = defaults[0][1];
  fields.guidance.value = constants.guidance.scale;
  for (const label of form.querySelectorAll("[data-for=guidance]")) label.hidden = !hasText;
  fields.prompt.value = model.prompts[0] ?? "";
  byId("examples").append(...model.prompts.map(prompt => Object.assign(document.createElement("button"), {
    type: "button", textContent: prompt, onclick: () => { fields.prompt.value = prompt; stop(); draw(); }})));
  const asked = new URLSearchParams(location.hash.slice(1)), other = ["sampler", "steps", "guidance", "negative"];
  for (const name of ["prompt", "seed", "count", ...constants.distilled ? [] : other]) {
    const value = asked.get(name), known = name !== "sampler" || Object.keys(samplers).includes(value);
    if (value !== null && known) fields[name].value = value.slice(0, MOST_LETTERS);
  }
  byId("more").open = Boolean(form.querySelector("#more :invalid"));      // a field that is not seen cannot complain
  return location.hash.length > 1;
}

form.onsubmit = event => {
  event.preventDefault();
  if (run && !run.stopped) stop();
  else draw();
};
byId("others").onclick = () => {
  stop();
  fields.seed.value = Math.floor(Math.random() * 1e9);
  draw();
};
fields.sampler.onchange = () => { fields.steps.value = samplers[fields.sampler.value]; };
byId("film").oninput = event => run.pictures.forEach(picture => picture.paint(Number(event.target.value)));
document.onkeydown = event => { if (event.key === "Escape") stop(); };

const asked = fill();
workers[0] = startWorker();
workers[0].then(() => {
  say("Ready.");
  byId("draw").disabled = byId("others").disabled = false;
  if (asked) draw();
}, error => say(error.message));
