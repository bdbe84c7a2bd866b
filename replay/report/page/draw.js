// Draws a figure where the page has room for it, in the page's own colours.
const data = JSON.parse(document.getElementById("data").textContent);
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const room = "max(containerSize()[0], 100)";
const fitted = ({ width, signals = [], ...rest }) => ({ ...rest,
  autosize: { type: "fit-x", contains: "padding" },
  signals: [...signals, { name: "width", init: room, on: [{ events: "window:resize", update: room }] }] });
function draw(id, spec) {
  const place = document.getElementById(id);
  return vegaEmbed(place, spec, { actions: false, renderer: "svg", ast: true, hover: !still, patch: fitted })
    .then(({ view }) => {
      place.dataset.drawn = "yes";
      const svg = place.querySelector("svg");
      svg.setAttribute("role", "img");
      for (const child of svg.children) child.setAttribute("aria-hidden", "true");
      svg.setAttribute("aria-label", place.dataset.title);
      place.view = view;
    })
    .catch((error) => {
      place.textContent = "This figure could not be drawn: " + error.message;
      console.error(error);
    });
}
