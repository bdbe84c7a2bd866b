// Draws the physmap of each strategy, and the ages of its pages, at the instant of the slider.
// What lies in the address space is a colour; a section over it is a hatched frame; live pages are
// bars that leave the colour above them free, so that what is under a section can always be seen.
const GAP = 14, LABEL = 62, BAR = 0.72;
const AREA_INK = ["--nothing", "--ram", "--device", "--others"];
const ink = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
const number = (value) => Math.round(value).toLocaleString("en-US");
const hex = (value) => "0x" + value.toString(16);

// The last instant that is not after a time; -1 before the first.
function instantAt(panel, seconds) {
  let k = panel.times.length - 1;
  while (k >= 0 && panel.times[k] > seconds + 1e-9) k--;
  return k;
}

// Live pages of each cell at an instant: cell -> [pages, holder, its pages].
function liveAt(panel, k) {
  const found = new Map(), v = panel.live;
  for (let i = 0; i < v.length; i += 6) {
    if (v[i + 1] <= k && k < v[i + 2]) found.set(v[i], [v[i + 3], v[i + 4], v[i + 5]]);
  }
  return found;
}

const sectionOf = (panel, cell, seconds) =>
  panel.sections.find(([a, b, since]) => a <= cell && cell <= b && since <= seconds + 1e-9);
const endangered = (map, area) => area === 2 || (area === 3 && map.identity);
const areaName = (map, panel, cell) => map.areas[Number(panel.areas[cell])] || "not looked at";

function prepared(canvas, height) {
  const width = canvas.clientWidth || 300, sharp = window.devicePixelRatio || 1;
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * sharp);
  canvas.height = Math.round(height * sharp);
  const pen = canvas.getContext("2d");
  pen.scale(sharp, sharp);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  return [pen, width];
}

// Where each row begins, from the top; a row behind a gap has room for its break mark.
function tops(map, high) {
  const found = [];
  let y = 1;
  for (const gap of map.left_out) {
    if (gap) y += GAP;
    found.push(y);
    y += high;
  }
  return [found, y + 2];
}

function breakMark(pen, y, width, text) {
  pen.strokeStyle = ink("--soft");
  pen.lineWidth = 1;
  pen.beginPath();
  for (let x = LABEL, k = 0; x <= width; x += 6, k++) pen.lineTo(x, y + (k % 2 ? -2 : 2));
  pen.stroke();
  const said = text + " left out", room = pen.measureText(said).width;
  const x = LABEL + (width - LABEL - room) / 2;
  pen.fillStyle = ink("--back");
  pen.fillRect(x - 5, y - 7, room + 10, 14);
  pen.fillStyle = ink("--soft");
  pen.fillText(said, x, y);
}

function labels(pen, map, top, high, width) {
  map.rows.forEach((pfn, row) => {
    if (map.left_out[row]) breakMark(pen, top[row] - GAP / 2, width, map.left_out[row]);
    pen.fillStyle = ink("--soft");
    pen.fillText(hex(pfn), 0, top[row] + high / 2);
  });
}

function hatched(pen, colour) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const on = tile.getContext("2d");
  on.strokeStyle = colour;
  on.lineWidth = 1.1;
  for (const shift of [-6, 0, 6]) {
    on.beginPath();
    on.moveTo(shift, 6);
    on.lineTo(shift + 6, 0);
    on.stroke();
  }
  return pen.createPattern(tile, "repeat");
}

function drawMap(canvas, map, panel, seconds, high) {
  const [top, height] = tops(map, high);
  const [pen, width] = prepared(canvas, height);
  const wide = (width - LABEL - 2) / map.columns, body = high - 3;
  const at = (cell) => [LABEL + (cell % map.columns) * wide, top[Math.floor(cell / map.columns)]];
  labels(pen, map, top, high, width);
  for (let cell = 0; cell < panel.areas.length; cell++) {
    if (panel.areas[cell] === " ") continue;
    const [x, y] = at(cell);
    pen.fillStyle = ink(AREA_INK[Number(panel.areas[cell])]);
    pen.fillRect(x, y, wide + 0.4, body);
  }
  const there = panel.sections.filter((section) => section[2] <= seconds + 1e-9);
  pen.fillStyle = hatched(pen, ink("--section"));
  for (const [a, b] of there) pen.fillRect(...at(a), (b - a + 1) * wide, body);
  for (const [cell, [pages]] of liveAt(panel, instantAt(panel, seconds))) {
    const [x, y] = at(cell), tall = Math.max(2, body * BAR * Math.min(1, pages / map.cell_pages));
    pen.fillStyle = ink(endangered(map, Number(panel.areas[cell])) ? "--endangered" : "--live");
    pen.fillRect(x, y + body - tall, Math.max(wide - (wide > 5 ? 0.8 : 0), 1), tall);
  }
  pen.strokeStyle = ink("--section");
  pen.lineWidth = 1.6;
  for (const [a, b] of there) {
    const [x, y] = at(a);
    pen.strokeRect(x, y, (b - a + 1) * wide, body);
  }
  for (const [cell, since] of panel.marks) {
    if (since <= seconds + 1e-9) mark(pen, at(cell)[0] + wide / 2, at(cell)[1] + body / 2);
  }
  canvas.cellAt = (x, y) => {
    const row = top.findIndex((start) => start <= y && y < start + high);
    const column = Math.floor((x - LABEL) / wide);
    return row < 0 || column < 0 || column >= map.columns ? -1 : row * map.columns + column;
  };
  canvas.placeOf = (cell) => [at(cell)[0] + wide / 2, at(cell)[1] + high];
}

function mark(pen, x, y) {
  for (const [size, colour] of [[6, ink("--back")], [4.5, ink("--mark")]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = size > 5 ? 5 : 2.4;
    pen.beginPath();
    pen.moveTo(x - size, y - size); pen.lineTo(x + size, y + size);
    pen.moveTo(x + size, y - size); pen.lineTo(x - size, y + size);
    pen.stroke();
  }
}

// Of a colour per age: the older, the further from the page's own colour.
function ageInk(age, oldest) {
  const [young, old] = ["--young", "--old"].map((name) => ink(name).match(/\w\w/g).map((c) => parseInt(c, 16)));
  const share = Math.min(1, Math.max(0, Math.log(1 + age) / Math.log(1 + oldest)));
  return `rgb(${young.map((c, k) => Math.round(c + share * (old[k] - c))).join()})`;
}

function drawAges(canvas, map, panel, seconds, oldest) {
  const high = 13, [top, rows] = tops(map, high);
  const [pen, width] = prepared(canvas, rows + 16), span = panel.times[panel.times.length - 1] || 1;
  const x = (s) => LABEL + (width - LABEL - 4) * s / span;
  labels(pen, map, top, high, width);
  const step = panel.times[1] - panel.times[0] || span, v = panel.ages;
  for (let i = 0; i < v.length; i += 4) {
    const left = x(Math.max(0, panel.times[v[i]] - step / 2));
    pen.fillStyle = ageInk(v[i + 2], oldest);
    pen.fillRect(left, top[v[i + 1]], x(Math.min(span, panel.times[v[i]] + step / 2)) - left + 0.5, high - 2);
  }
  pen.fillStyle = ink("--text");
  pen.fillRect(x(Math.min(span, seconds)) - 0.75, 0, 1.5, rows);
  pen.fillStyle = ink("--soft");
  pen.fillText("0 s", LABEL, rows + 8);
  const end = span.toPrecision(3) * 1 + " s";
  pen.fillText(end, width - 4 - pen.measureText(end).width, rows + 8);
}

// What a cell is, and who holds it, in words.
function cellSaid(map, panel, cell, seconds) {
  const pfn = map.rows[Math.floor(cell / map.columns)] + (cell % map.columns) * map.cell_pages;
  const said = [`pfn ${hex(pfn)}, ${map.cell}: ${areaName(map, panel, cell)}`];
  const section = sectionOf(panel, cell, seconds);
  if (section) said.push(`under a section, since ${section[2].toPrecision(4) * 1} s`);
  const live = liveAt(panel, instantAt(panel, seconds)).get(cell);
  if (!live) said.push("no live page");
  else {
    const who = panel.holders[live[1]] || "unknown";
    said.push(`${number(live[0])} of ${number(map.cell_pages)} pages live`);
    said.push(live[2] === live[0] && panel.exact ? `held by ${who}`
      : `${panel.exact ? "" : "at least "}${number(live[2])} of them held by ${who}`);
  }
  for (const [at, since, what] of panel.marks) {
    if (at === cell && since <= seconds + 1e-9) said.push(what);
  }
  return said;
}

// The state of a panel in one sentence.
function panelSaid(map, panel, seconds) {
  const within = new Map();
  let all = 0;
  for (const [cell, [pages]] of liveAt(panel, instantAt(panel, seconds))) {
    const area = areaName(map, panel, cell);
    within.set(area, (within.get(area) || 0) + pages);
    all += pages;
  }
  const parts = [...within].sort((a, b) => b[1] - a[1]).map(([area, pages]) => `${number(pages)} in ${area}`);
  const over = new Map();
  for (const [a, b, since] of panel.sections) {
    if (since > seconds + 1e-9) continue;
    for (let cell = a; cell <= b; cell++) {
      const area = areaName(map, panel, cell);
      over.set(area, (over.get(area) || 0) + 1);
    }
  }
  const sections = [...over].map(([area, cells]) => `${number(cells * map.cell_pages)} pages over ${area}`);
  return `${number(all)} live pages${parts.length ? ": " + parts.join(", ") : ""}. `
    + (sections.length ? `Sections: ${sections.join(", ")}.` : "No section.");
}
