for (const strips of document.querySelectorAll(".strips")) {
  const figures = strips.querySelectorAll("figure"), slider = strips.querySelector("input");
  const show = () => figures.forEach((figure, index) => figure.classList.toggle("chosen", index === +slider.value));
  strips.classList.add("with-script");
  slider.oninput = show;
  show();
}
