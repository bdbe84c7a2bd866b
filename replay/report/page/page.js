// Draws each figure from its specification; the reader's choice of colours is the page's own.
const specs = JSON.parse(document.getElementById("specs").textContent);
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const [id, spec] of Object.entries(specs)) {
  const place = document.getElementById(id);
  vegaEmbed(place, spec, { actions: false, renderer: "svg", ast: true, hover: !still, logLevel: 1 /* errors */ })
    .then(({ view }) => {
      place.dataset.drawn = "yes";
      const svg = place.querySelector("svg");
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", place.dataset.title);
      place.view = view;
    })
    .catch((error) => {
      place.textContent = "This figure could not be drawn: " + error.message;
      console.error(error);
    });
}
