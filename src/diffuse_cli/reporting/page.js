for (const strips of document.querySelectorAll(".strips")) {
  const sections = strips.querySelectorAll("section"), slider = strips.querySelector("input");
  const show = () => sections.forEach((section, index) => section.classList.toggle("chosen", index === +slider.value));
  strips.classList.add("with-script");
  slider.oninput = show;
  show();
}

for (const command of document.querySelectorAll("pre")) {
  const button = document.createElement("button");
  button.textContent = "copy";
  button.onclick = () => {
    getSelection().selectAllChildren(command);
    button.textContent = document.execCommand("copy") ? "copied" : "selected";
  };
  command.previousElementSibling.append(button);
}

const hint = document.createElement("p");
hint.className = "faint";
hint.textContent = "Drag across a curve to enlarge that part. A double click shows the whole again.";
document.querySelector(".curves")?.before(hint);

for (const chart of document.querySelectorAll("svg[data-axes]")) {
  const [left, right, low, high, bottom, top, least, most, log] = chart.dataset.axes.split(" ").map(Number);
  const element = (name, attributes = {}) => {
    const made = document.createElementNS(chart.namespaceURI, name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };
  const curves = [...chart.querySelectorAll("path[data-label]")].map(path => ({
    label: path.dataset.label, path, dots: path.nextElementSibling,
    points: [...path.getAttribute("d").matchAll(/([-.0-9]+) ([-.0-9]+)/g)].map(pair => [+pair[1], +pair[2]]),
  }));
  const ticks = [...chart.querySelectorAll("text")].filter(({textContent}) => textContent !== chart.dataset.x)
    .map(tick => ({tick, whole: tick.textContent, x: +tick.getAttribute("x"), y: +tick.getAttribute("y") - 3.5}));

  // The curves move into an element whose viewBox is the part of them that is seen.
  const plot = chart.appendChild(element("svg", {
    x: left, y: top, width: right - left, height: bottom - top, preserveAspectRatio: "none"}));
  for (const {path, dots} of curves) plot.append(path, ...(dots?.style.strokeLinecap === "round" ? [dots] : []));
  const line = plot.appendChild(element("path", {style: "stroke: currentColor; opacity: 0.5"}));
  for (const path of plot.children) path.setAttribute("vector-effect", "non-scaling-stroke");
  const chosen = chart.appendChild(element("rect", {y: top, height: bottom - top, style: "fill: currentColor; opacity: 0.15"}));
  const readout = document.createElement("p");
  readout.className = "readout";
  chart.after(readout);

  let seen, start = null;                           // x, y, width and height of what is seen; where a drag began
  const step = x => {
    const at = low + (x - left) / (right - left) * (high - low);
    const digits = seen[2] / (right - left) * (high - low) > 20 ? 0 : 2;
    return at.toLocaleString("en", {maximumFractionDigits: digits});
  };
  const value = y => {
    const place = least + (y - bottom) / (top - bottom) * (most - least);
    return (log ? 10 ** place : place).toPrecision(3);
  };
  const short = number => number.length > 6 ? (+number).toExponential(1).replace("+", "") : number;
  const show = (...part) => {
    seen = part;
    plot.setAttribute("viewBox", part.join(" "));
    const whole = part[2] === right - left;
    for (const {tick, whole: text, x, y} of ticks) {
      const anchor = tick.getAttribute("text-anchor");
      if (anchor === "middle") tick.textContent = whole ? text : step(inside(x));
      if (anchor === "end") tick.textContent = whole ? text : short(value(part[1] + (y - top) / (bottom - top) * part[3]));
    }
  };
  const inside = x => seen[0] + (x - left) / (right - left) * seen[2];
  const pointed = event => {
    const box = chart.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
    return Math.min(Math.max(x, left), right);
  };
  const choose = (from, to) => {
    chosen.setAttribute("x", Math.min(from, to));
    chosen.setAttribute("width", Math.abs(to - from));
  };

  chart.onpointerdown = event => {
    start = pointed(event);
    chart.setPointerCapture(event.pointerId);
  };
  chart.onpointerup = event => {
    const [from, to] = [start, pointed(event)].sort((a, b) => a - b).map(inside);
    const wide = start !== null && Math.abs(pointed(event) - start) > 4;
    const heights = curves.flatMap(curve => curve.points).filter(([x]) => x >= from && x <= to).map(([, y]) => y);
    start = null;
    choose(0, 0);
    if (!wide || !heights.length) return;
    const above = Math.min(...heights), height = Math.max(...heights) - above || 1;
    show(from, above - 0.05 * height, to - from, 1.1 * height);
  };
  chart.ondblclick = () => show(left, top, right - left, bottom - top);
  chart.onpointermove = event => {
    if (start !== null) choose(start, pointed(event));
    const pointer = inside(pointed(event));
    const nearest = points => points.reduce((a, b) => Math.abs(b[0] - pointer) < Math.abs(a[0] - pointer) ? b : a);
    const x = nearest(curves.flatMap(curve => curve.points))[0];
    const parts = curves.map(curve => `${curve.label} ${value(nearest(curve.points)[1])}`);
    line.setAttribute("d", `M ${x} ${bottom} V ${top}`);
    readout.textContent = `${chart.dataset.x} ${step(x)}: ${parts.join(", ")}`;
  };
  chart.onpointerleave = chart.onpointercancel = () => {
    start = null;
    choose(0, 0);
    line.removeAttribute("d");
    readout.textContent = "";
  };
  chart.ondblclick();
}
