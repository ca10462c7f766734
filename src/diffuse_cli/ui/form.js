// The form: what can be chosen, what was chosen, and how another picture's settings are put into it.
// An empty field means the default, which stands in it in grey.

import { fitAgain, pictureAndMask, setStrength } from "./start_picture.js";

const find = id => document.getElementById(id);
const NUMBERS = ["count", "steps", "guidance", "batch_size"];
let options;

const model = () => options.models.find(one => one.name === find("model").value);

function option(value, text = value) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

export function setUpForm(given) {
  options = given;
  find("model").replaceChildren(...options.models.map(one => option(one.name)));
  find("model").value = options.chosen;
  find("sampler").replaceChildren(...Object.keys(options.samplers).map(name => option(name)));
  find("precision").replaceChildren(...options.precisions.map(name => option(name)));
  find("precision").value = "fp32";
  find("batch_size").placeholder = options.batch_size;
  find("count").max = options.max_pictures;
  find("prompt").maxLength = find("negative").maxLength = options.max_prompt;
  find("model").addEventListener("change", () => {
    showModel();
    fitAgain();
  });
  find("sampler").addEventListener("change", showUsualSteps);
  showModel();
}

// A model's own defaults, the words it knows, and what it cannot do.
function showModel() {
  const { width, height, captions, student, sampler, guidance, interval, words, larger } = model();
  const about = [`${width} × ${height} pixels`];
  if (!captions) about.push("without captions: it ignores prompts");
  if (student) about.push(`draws in ${student.steps} steps, with a guidance of ${student.guidance} built in`);
  find("about-model").textContent = about.join("; ");
  find("size-box").hidden = larger.length === 0;
  find("size").replaceChildren(option("", `${width} × ${height}`), ...larger.map(
    size => option(size, `${size.replace("x", " × ")}, upscaled`)));
  for (const id of ["steps", "guidance", "sampler", "interval-low", "interval-high", "negative"]) {
    find(id).disabled = Boolean(student);
    if (student) find(id).value = "";
  }
  find("prompt").disabled = !captions;
  find("sampler").value = sampler;
  find("guidance").placeholder = guidance;
  find("interval-low").placeholder = interval[0];
  find("interval-high").placeholder = interval[1];
  find("brush").max = Math.max(2, Math.min(width, height) / 2);
  find("brush").value = Math.max(1, Math.min(width, height) / 10);
  find("words-box").hidden = words.length === 0;
  find("words").replaceChildren(...words.map(word => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = word;
    button.addEventListener("click", () => {
      const prompt = find("prompt");
      prompt.value = `${prompt.value.trimEnd()} ${word}`.trimStart();
    });
    return button;
  }));
  showUsualSteps();
}

function showUsualSteps() {
  find("steps").placeholder = model().student ? model().steps : options.samplers[find("sampler").value];
}

const numberIn = id => find(id).value === "" || find(id).disabled ? null : Number(find(id).value);

// What is sent: the fields of `Form` in form.py, which judges them. The browser does not: a field in a part of the form
// that is closed could not be shown by it.
export async function readForm() {
  const values = Object.fromEntries(NUMBERS.map(id => [id, numberIn(id)]));
  const low = numberIn("interval-low"), high = numberIn("interval-high"), usual = model().interval;
  return {
    ...values, count: values.count ?? 1, model: model().name, prompt: find("prompt").value.trim(), negative: find("negative").value.trim(),
    seed: find("seed").value.trim(), sampler: find("sampler").disabled ? null : find("sampler").value,
    precision: find("precision").value, size: find("size").value,
    guidance_interval: low === null && high === null ? null : [low ?? usual[0], high ?? usual[1]],
    ...await pictureAndMask(),
  };
}

// Put values into the form. Those that are not known get their default.
export function fillForm(values) {
  if (options.models.some(one => one.name === values.model)) {
    find("model").value = values.model;
    showModel();
    fitAgain();
  }
  for (const id of [...NUMBERS, "prompt", "negative", "seed"]) {
    if (!find(id).disabled) find(id).value = values[id] ?? "";
  }
  if (!model().student) {
    find("sampler").value = values.sampler ?? model().sampler;
    [find("interval-low").value, find("interval-high").value] = values.guidance_interval ?? ["", ""];
  }
  find("precision").value = values.precision ?? "fp32";
  find("size").value = model().larger.includes(values.size) ? values.size : "";
  if (values.strength != null) setStrength(values.strength);
  showUsualSteps();
}
