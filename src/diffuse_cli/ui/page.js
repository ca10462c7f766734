// The page: its tabs, drawing, and pictures that are dropped on it. Every request goes to the address it came from.

import { fillForm, readForm, setUpForm } from "./form.js";
import { showDrawing } from "./gallery.js";
import { setUpStartPicture, startFrom } from "./start_picture.js";
import { watchTrainings } from "./training.js";

const find = id => document.getElementById(id);
const options = await (await fetch("options")).json();
let cancelling = null;                          // an AbortController while something is drawn

function say(text) {
  find("status").textContent = text;
}

function note(texts) {
  find("notes").replaceChildren(...texts.map(text => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

// Errors are shown in the page: those that the program explains, and the program's absence.
async function checked(response) {
  if (!response.ok) throw new Error(await response.text());
  return response;
}

function explain(error) {
  say(error instanceof TypeError ? "The program does not answer. Has it ended in the terminal?" : error.message);
}

// ── Drawing ────────────────────────────────────────────────────────────────────────────────────────────────────────

async function* linesOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

async function draw() {
  if (cancelling) return;
  const notes = [], progress = find("progress");
  let drawing = null, ended = false;
  cancelling = new AbortController();
  swapButtons();
  progress.removeAttribute("value");            // a bar that moves until the first step is done
  say("Waiting …");
  note([]);
  try {
    const values = await readForm();
    const response = await checked(await fetch(
      "draw", { method: "POST", body: JSON.stringify(values), signal: cancelling.signal }));
    for await (const line of linesOf(response.body)) {
      const message = JSON.parse(line);
      if (message.command) {
        const shape = options.models.find(one => one.name === values.model);
        drawing = showDrawing(values, message, shape, { fillForm, startFrom, say });
      }
      if (message.loading) say("Loading the model …");
      if (message.note) {
        notes.push(message.note);
        note(notes);
      }
      if (message.estimates) drawing.showEstimates(message.estimates, message.first);
      if (message.picture) drawing.showPicture(message);
      if (message.error) throw new Error(message.error);
      if ("done" in message) {
        progress.value = message.done / values.count;
        say("Drawing …");
        drawing.showProgress(`${Math.round(100 * progress.value)} %`);
      }
      ended ||= "end" in message;
    }
    if (!ended) throw new TypeError("the answer stopped");
    say(`Drawn with seed ${drawing.seed}.`);
  } catch (error) {
    if (error.name === "AbortError") say("Cancelled.");
    else explain(error);
  }
  drawing?.end();
  cancelling = null;
  swapButtons();
}

// While something is drawn, "Cancel" stands in the place of "Draw", also for the keyboard.
function swapButtons() {
  const [from, to] = cancelling ? ["go", "cancel"] : ["cancel", "go"], hadFocus = document.activeElement === find(from);
  find(from).hidden = true;
  find(to).hidden = false;
  find("progress").hidden = !cancelling;
  if (hadFocus) find(to).focus();
}

find("form").addEventListener("submit", event => {
  event.preventDefault();
  draw();
});
find("cancel").addEventListener("click", () => cancelling?.abort());
find("prompt").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    find("form").requestSubmit();
  }
});

// ── Pictures that are dropped or chosen ────────────────────────────────────────────────────────────────────────────

function isTooLarge(file) {
  const limit = options.max_picture_bytes;
  if (file.size > limit) say(`${file.name} is too large: at most ${Math.floor(limit / 2 ** 20)} MB are taken.`);
  return file.size > limit;
}

async function takeSettings(file) {
  const response = await fetch("settings", { method: "POST", body: file });
  const settings = await (await checked(response)).json();
  fillForm(settings.values);
  note(settings.notes);
  say(`These are the settings of ${file.name}. Press Draw to draw it again.`);
}

// A dropped PNG that says how it was drawn fills the form; any other picture is one to start from.
async function take(file) {
  if (isTooLarge(file)) return;
  try {
    await takeSettings(file);
  } catch (error) {
    try {
      await startFrom(file);
      say(`${file.name} holds no settings, so it is the picture to start from.`);
    } catch {
      explain(error);
    }
  }
}

find("settings-file").addEventListener("change", event => {
  const [file] = event.target.files;
  if (file && !isTooLarge(file)) takeSettings(file).catch(explain);
  event.target.value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, event => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
addEventListener("dragleave", event => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (!file || isTooLarge(file)) return;
  if (find("start-box").contains(event.target)) startFrom(file).catch(explain);
  else take(file);
});

// ── Tabs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(chosen) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
    find(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
}

for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", event => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const next = tabs[(index + 1) % tabs.length];
    next.focus();
    next.click();
  });
}

setUpForm(options);
setUpStartPicture({ isTooLarge, explain, checked });
watchTrainings();
document.body.dataset.ready = "yes";
