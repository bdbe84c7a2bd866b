// One slider and one choice of strategy for a run's maps, ages and curves; words that explain
// themselves; figures in folded parts, drawn when they are opened.
const tip = document.getElementById("tip");
function showTip(lines, x, y) {
  tip.replaceChildren(...lines.map((line) => {
    const row = document.createElement("div");
    row.textContent = line;
    return row;
  }));
  tip.hidden = false;
  const left = Math.min(x + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const below = y + 14 + tip.offsetHeight < innerHeight;
  tip.style.left = Math.max(4, left) + scrollX + "px";
  tip.style.top = (below ? y + 14 : Math.max(0, y - 10 - tip.offsetHeight)) + scrollY + "px";
}
const hideTip = () => { tip.hidden = true; };

// An <abbr> explains itself at a touch as it does under a mouse.
document.addEventListener("click", (event) => {
  const word = event.target.closest("abbr[title]");
  if (!word) return hideTip();
  const box = word.getBoundingClientRect();
  return showTip([word.title], box.left, box.bottom - 8);
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

class Part {
  constructor(place, map) {
    this.place = place;
    this.map = map;
    this.slider = place.querySelector("input[type=range]");
    this.choice = place.querySelector("select.only");
    this.only = Number(this.choice?.value ?? -1);
    this.cursor = 0;
    if (map) this.prepareMap();
    this.choice?.addEventListener("change", () => {
      this.only = Number(this.choice.value);
      this.update();
    });
  }

  get seconds() { return this.map ? this.map.times[Number(this.slider.value)] : 0; }

  prepareMap() {
    this.slider.addEventListener("input", () => this.update());
    this.place.querySelector("button.peak").addEventListener("click", () => this.go(this.map.open));
    this.oldest = Math.max(1, ...this.map.panels.flatMap((p) => p.ages.filter((_, i) => i % 4 === 2)));
    const oldest = this.place.querySelector(".ramp .oldest");
    if (oldest) oldest.textContent = `${Number(this.oldest.toPrecision(3))} s in the mean`;
    for (const [k, panel] of this.map.panels.entries()) {
      const box = this.place.querySelector(`.map[data-panel="${k}"]`), canvas = box.querySelector("canvas");
      const tell = (cell, x, y) => showTip(cellSaid(this.map, panel, cell, this.seconds), x, y);
      canvas.addEventListener("pointermove", (event) => {
        const edge = canvas.getBoundingClientRect();
        const cell = canvas.cellAt(event.clientX - edge.left, event.clientY - edge.top);
        if (cell < 0) hideTip(); else tell(cell, event.clientX, event.clientY);
      });
      canvas.addEventListener("pointerleave", hideTip);
      box.addEventListener("blur", hideTip);
      box.addEventListener("keydown", (event) => this.walk(event, panel, canvas, tell, box));
    }
  }

  // Arrow keys go from cell to cell; what each is stands in a live region.
  walk(event, panel, canvas, tell, box) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.map.columns, ArrowDown: this.map.columns }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = this.cursor + step;
    if (next >= 0 && next < panel.areas.length) this.cursor = next;
    const edge = canvas.getBoundingClientRect(), [x, y] = canvas.placeOf(this.cursor);
    tell(this.cursor, edge.left + x, edge.top + y);
    box.querySelector(".told").textContent = cellSaid(this.map, panel, this.cursor, this.seconds).join("; ");
  }

  go(instant) {
    this.slider.value = instant;
    this.update();
  }

  // The instant nearest to a time: a curve was clicked there.
  goTo(seconds) {
    const away = this.map.times.map((s) => Math.abs(s - seconds));
    this.go(away.indexOf(Math.min(...away)));
  }

  follow(chart) {
    const { view } = chart;
    if (!this.map || !hasSignal(view, "at")) return this.show(chart);
    const move = (event) => {
      const [x] = [event.clientX - chart.querySelector("svg").getBoundingClientRect().left - view.origin()[0]];
      this.goTo(view.scale("x").invert(x));
    };
    chart.classList.add("timed");
    chart.addEventListener("pointerdown", (event) => { if (event.button === 0) move(event); });
    chart.addEventListener("pointermove", (event) => { if (event.buttons & 1) move(event); });
    return this.show(chart);
  }

  show({ view }) {
    if (hasSignal(view, "only")) view.signal("only", this.only);
    if (this.map && hasSignal(view, "at")) view.signal("at", this.seconds);
    view.runAsync();
  }

  update() {
    if (this.map) this.drawMaps();
    for (const chart of this.place.querySelectorAll(".chart")) if (chart.view) this.show(chart);
  }

  drawMaps() {
    const said = `${Number(this.seconds.toPrecision(5))} s`;
    this.slider.setAttribute("aria-valuetext", `${said} of modelled time`);
    this.place.querySelector("output").textContent = said;
    const one = this.only >= 0 && this.map.panels.some((p) => p.group === this.only);
    for (const [k, panel] of this.map.panels.entries()) {
      const gone = one && panel.group !== this.only;
      for (const box of this.place.querySelectorAll(`[data-panel="${k}"]`)) box.closest(".panel").hidden = gone;
      if (gone) continue;
      const box = this.place.querySelector(`.map[data-panel="${k}"]`);
      drawMap(box.querySelector("canvas"), this.map, panel, this.seconds, one ? 20 : 15);
      const state = panelSaid(this.map, panel, this.seconds);
      box.parentElement.querySelector(".state").textContent = state;
      const ages = this.place.querySelector(`canvas.ages[data-panel="${k}"]`);
      if (ages) drawAges(ages, this.map, panel, this.seconds, this.oldest);
    }
  }
}

function hasSignal(view, name) {
  try { view.signal(name); return true; } catch { return false; }
}

const parts = [...document.querySelectorAll("[data-part]")].map(
  (place) => new Part(place, data.maps[place.dataset.part]));
const redraw = () => parts.forEach((part) => part.map && part.drawMaps());
redraw();
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
matchMedia("print").addEventListener("change", redraw);

async function drawIn(part, chart) {
  if (chart.dataset.begun) return;
  chart.dataset.begun = "yes";
  await draw(chart.id, data.figures[chart.id]);
  if (chart.view) part.follow(chart);
}
// One after the other, from the top, with room between them for what the reader does meanwhile.
const pause = () => new Promise((go) => { setTimeout(go); });
async function drawAll() {
  const charts = parts.flatMap((part) => [...part.place.querySelectorAll(".chart")].map((chart) => [part, chart]));
  for (const [part, chart] of charts) {
    chart.closest("details")?.addEventListener("toggle", () => drawIn(part, chart));
  }
  for (const [part, chart] of charts) {
    await pause();
    if (!chart.closest("details:not([open])")) await drawIn(part, chart);
  }
  document.body.dataset.ready = "yes";
}
drawAll();
addEventListener("beforeprint", () => {
  document.querySelectorAll("details.printed").forEach((one) => { one.open = true; });
});
