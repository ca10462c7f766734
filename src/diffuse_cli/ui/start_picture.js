// The picture to start from, as the model sees it, and the mask that is painted over it, in the model's own pixels.

const find = id => document.getElementById(id);
const canvas = find("start-canvas");
const mask = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
let tools, brushAt = null, original = null, picture = null, pictureFile = null, isMasked = false, isStrengthChosen = false;

export function setUpStartPicture(given) {
  tools = given;
  find("start-file").addEventListener("change", event => {
    const [file] = event.target.files;
    if (file && !tools.isTooLarge(file)) startFrom(file).catch(tools.explain);
    event.target.value = "";
  });
  find("mask-file").addEventListener("change", event => {
    const [file] = event.target.files;
    if (file && !tools.isTooLarge(file)) takeMask(file).catch(tools.explain);
    event.target.value = "";
  });
  find("clear-mask").addEventListener("click", clearMask);
  find("save-mask").addEventListener("click", saveMask);
  find("remove-start").addEventListener("click", () => {
    original = picture = null;
    find("start").hidden = true;
    find("start-name").textContent = "";
  });
  find("strength").addEventListener("input", () => {
    isStrengthChosen = true;
    showStrength();
  });
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    brushAt = null;
    paint(event);
  });
  canvas.addEventListener("pointermove", event => {
    if (event.buttons) paint(event);
  });
  showStrength();
}

// Ask the program how the model sees a picture: in the shape of its own.
async function fitted(file, query = "") {
  const address = `fitted?model=${encodeURIComponent(find("model").value)}${query}`;
  const response = await tools.checked(await fetch(address, { method: "POST", body: file }));
  return response.blob();
}

export async function startFrom(file) {
  pictureFile = await fitted(file);
  picture = await createImageBitmap(pictureFile);
  original = file;
  for (const side of ["width", "height"]) canvas[side] = mask.canvas[side] = picture[side];
  clearMask();
  find("start-name").textContent = file.name;
  find("start").hidden = false;
  find("start-box").open = true;
  canvas.scrollIntoView({ block: "center" });
}

// The model was changed: its pixels may be others, so the mask is gone.
export function fitAgain() {
  if (original) startFrom(original).catch(tools.explain);
}

async function takeMask(file) {
  const image = await createImageBitmap(await fitted(file, "&mask"));
  mask.drawImage(image, 0, 0);
  const pixels = mask.getImageData(0, 0, image.width, image.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const isWhite = pixels.data[at] + pixels.data[at + 1] + pixels.data[at + 2] >= 3 * 127.5;
    pixels.data.fill(isWhite ? 255 : 0, at, at + 4);
  }
  mask.putImageData(pixels, 0, 0);
  isMasked = true;
  show();
}

function clearMask() {
  mask.clearRect(0, 0, canvas.width, canvas.height);
  isMasked = false;
  show();
}

// Paint a line from where the brush was, because a fast pointer is seen at few places.
function paint(event) {
  const box = canvas.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * canvas.width;
  const y = (event.clientY - box.top) / box.height * canvas.height;
  const [fromX, fromY] = brushAt ?? [x, y], steps = Math.ceil(Math.hypot(x - fromX, y - fromY)) || 1;
  for (let step = 1; step <= steps; step++) {
    dab(fromX + (x - fromX) * step / steps, fromY + (y - fromY) * step / steps);
  }
  brushAt = [x, y];
  isMasked = true;
  show();
}

// Whole pixels within the brush's radius become white.
function dab(x, y) {
  const radius = Number(find("brush").value) / 2;
  mask.fillStyle = "white";
  for (let row = Math.floor(y - radius); row <= y + radius; row++) {
    for (let column = Math.floor(x - radius); column <= x + radius; column++) {
      if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= Math.max(radius, 0.71)) mask.fillRect(column, row, 1, 1);
    }
  }
}

function show() {
  const context = canvas.getContext("2d");
  context.globalAlpha = 1;
  context.clearRect(0, 0, canvas.width, canvas.height);                 // a transparent picture would not
  if (picture) context.drawImage(picture, 0, 0);
  context.globalAlpha = 0.65;
  context.drawImage(mask.canvas, 0, 0);
  showStrength();
}

function showStrength() {
  const strength = find("strength");
  if (!isStrengthChosen) strength.value = isMasked ? 1 : 0.75;         // as for the command
  find("strength-shown").value = strength.value;
}

export function setStrength(value) {
  find("strength").step = "any";                // a value from elsewhere may lie between two steps
  find("strength").value = value;
  isStrengthChosen = true;
  showStrength();
}

// The mask as a file: white on black.
async function maskFile() {
  const whole = new OffscreenCanvas(canvas.width, canvas.height), context = whole.getContext("2d");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(mask.canvas, 0, 0);
  return whole.convertToBlob();
}

async function saveMask() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await maskFile());
  link.download = "mask.png";
  link.click();
  URL.revokeObjectURL(link.href);
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.split(",")[1]);
    reader.onerror = reject;
    reader.readAsDataURL(blob);
  });
}

// What of the form belongs to the picture to start from; nothing if there is none.
export async function pictureAndMask() {
  if (!picture) return {};
  return {
    init: await base64(pictureFile), init_name: original.name, strength: Number(find("strength").value),
    mask: isMasked ? await base64(await maskFile()) : "",
  };
}
