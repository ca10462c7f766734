// Watches a training: its report, written anew by the program whenever something happened.

const SECONDS = 3;                              // between two looks, or more if the report takes long
const find = id => document.getElementById(id);
const report = find("report"), choice = find("run");
let shown = "";                                 // name and version of the run that the report shows

async function look() {
  const runs = await (await fetch("runs")).json();
  const names = runs.map(run => run.name), chosen = names.includes(choice.value) ? choice.value : names[0];
  if (names.join() !== [...choice.options].map(option => option.value).join()) {
    choice.replaceChildren(...names.map(name => new Option(name)));
    choice.value = chosen ?? "";
  }
  find("no-run").hidden = names.length > 0;
  choice.hidden = choice.labels[0].hidden = report.hidden = names.length === 0;
  if (!chosen) return;
  const version = `${chosen} ${runs[names.indexOf(chosen)].version}`;
  if (version === shown) return;
  const isSameRun = shown.startsWith(`${chosen} `);
  await new Promise(resolve => {
    report.onload = resolve;
    if (isSameRun) report.contentWindow.location.reload();
    else report.src = `run?name=${encodeURIComponent(chosen)}`;
  });
  shown = version;
  fit();
}

// The report is as high as its content, so that the page scrolls and not a part of it.
function fit() {
  const content = report.contentDocument?.documentElement;
  if (content) report.style.height = `${content.scrollHeight}px`;
}

export function watchTrainings() {
  let waiting;
  const again = async () => {
    clearTimeout(waiting);
    const started = performance.now();
    if (!document.hidden && !find("watch").hidden) await look().catch(() => {});       // the next look may succeed
    waiting = setTimeout(again, Math.max(1000 * SECONDS, 20 * (performance.now() - started)));
  };
  choice.addEventListener("change", again);
  find("watch-tab").addEventListener("click", again);
  addEventListener("resize", fit);
  again();
}
