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

for (const chart of document.querySelectorAll("svg[data-axes]")) {
  const [left, right, low, high, bottom, top, least, most, log] = chart.dataset.axes.split(" ").map(Number);
  const curves = [...chart.querySelectorAll("path[data-label]")].map(path => ({
    label: path.dataset.label,
    points: [...path.getAttribute("d").matchAll(/([-.0-9]+) ([-.0-9]+)/g)].map(pair => [+pair[1], +pair[2]]),
  }));
  const line = chart.appendChild(document.createElementNS(chart.namespaceURI, "path"));
  line.setAttribute("style", "stroke: currentColor; opacity: 0.5");
  const readout = document.createElement("p");
  readout.className = "readout";
  chart.after(readout);
  const value = y => {
    const place = least + (y - bottom) / (top - bottom) * (most - least);
    return (log ? 10 ** place : place).toPrecision(3);
  };
  chart.onpointermove = event => {
    const box = chart.getBoundingClientRect();
    const pointer = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
    const nearest = points => points.reduce((a, b) => Math.abs(b[0] - pointer) < Math.abs(a[0] - pointer) ? b : a);
    const x = nearest(curves.flatMap(curve => curve.points))[0];
    const at = low + (x - left) / (right - left) * (high - low);
    const parts = curves.map(curve => `${curve.label} ${value(nearest(curve.points)[1])}`);
    line.setAttribute("d", `M ${x} ${bottom} V ${top}`);
    const digits = high - low > 20 ? 0 : 2;
    readout.textContent = `${chart.dataset.x} ${at.toLocaleString("en", {maximumFractionDigits: digits})}: ${parts.join(", ")}`;
  };
  chart.onpointerleave = () => {
    line.removeAttribute("d");
    readout.textContent = "";
  };
}
