// The pictures that were drawn, the newest drawing first. They are kept in the page alone, until it is closed.

const MOST_DRAWINGS = 30;
const gallery = document.getElementById("gallery");

const copyOf = id => document.getElementById(id).content.firstElementChild.cloneNode(true);
const addressOf = base64 => `data:image/png;base64,${base64}`;

function fileOf(base64, name) {
  const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
  return new File([bytes], name, { type: "image/png" });
}

// Show a drawing that has just begun. `values` are those of the form, `begun` the first message of the
// program, `shape` the width and the height of a picture.
export function showDrawing(values, begun, shape, { fillForm, startFrom, say }) {
  const article = copyOf("drawing"), figures = [], title = values.prompt || "no prompt";
  const [again, copy, command] = [".again", ".copy", "pre"].map(name => article.querySelector(name));
  article.querySelector("h2").textContent = title;
  article.classList.toggle("upscaled", Boolean(values.size));
  const about = article.querySelector("p"), facts = `${values.model}, seed ${begun.seed}`;
  about.textContent = facts;
  again.addEventListener("click", () => {
    fillForm({ ...values, seed: begun.seed });
    say("These are the settings of that drawing.");
    document.getElementById("prompt").focus();
  });
  copy.addEventListener("click", async () => {
    command.firstElementChild.textContent = begun.command;
    command.hidden = false;
    const needed = [values.init && values.init_name, values.mask && "mask.png"].filter(Boolean);
    const where = needed.length ? ` Run it where ${needed.join(" and ")} ${needed.length > 1 ? "are" : "is"}.` : "";
    try {
      await navigator.clipboard.writeText(begun.command);
      say(`Copied.${where}`);
    } catch {
      getSelection().selectAllChildren(command);
      say(`Selected: copy it with Ctrl-C.${where}`);
    }
  });
  for (let index = 0; index < values.count; index++) {
    const figure = copyOf("picture");
    figure.className = "unfinished";
    Object.assign(figure.querySelector("img"), { width: shape.width, height: shape.height });      // until it is there
    figure.querySelector("img").alt = `${title}, picture ${index + 1}`;
    figure.querySelector("figcaption").hidden = true;
    figures.push(figure);
  }
  article.querySelector(".pictures").append(...figures);
  document.getElementById("nothing-yet").hidden = true;
  gallery.prepend(article);
  if (gallery.offsetTop > innerHeight / 2) article.scrollIntoView();   // on a phone it is below the form
  for (const old of [...gallery.querySelectorAll("article")].slice(MOST_DRAWINGS)) old.remove();

  return {
    seed: begun.seed,
    showProgress(text) {
      about.textContent = `${facts}; ${text}`;
    },
    // The model's estimates of the pictures from number `first` on, in the middle of the sampling.
    showEstimates(estimates, first) {
      estimates.forEach((estimate, index) => {
        figures[first + index].querySelector("img").src = addressOf(estimate);
      });
    },
    showPicture({ picture, index, seed, name }) {
      const figure = figures[index], file = fileOf(picture, name), save = figure.querySelector(".save");
      const image = figure.querySelector("img");
      image.src = save.href = addressOf(picture);
      image.alt = `${title}, seed ${seed}`;
      save.download = name;
      save.setAttribute("aria-label", `Save the picture of seed ${seed}`);
      figure.querySelector("span").textContent = `seed ${seed}`;
      figure.querySelector(".start").setAttribute("aria-label", `Edit the picture of seed ${seed}`);
      figure.querySelector(".start").addEventListener("click", async () => {
        await startFrom(file);
        say(`${name} is the picture to start from. Save it too if you copy the command.`);
      });
      figure.querySelector("figcaption").hidden = false;
      figure.className = "";
    },
    // Remove what is not finished, and never will be.
    end() {
      about.textContent = facts;
      for (const figure of article.querySelectorAll(".unfinished")) figure.remove();
      if (!article.querySelector("figure")) article.remove();
    },
  };
}
