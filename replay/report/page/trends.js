// Charts one after the other, the first ones first; a table of nights when it is asked for.
const DAY = 86400000;
function time(ns) {
  const [by, unit] = ns >= 1e9 ? [1e9, "s"] : ns >= 1e6 ? [1e6, "ms"] : ns >= 1e3 ? [1e3, "us"] : [1, "ns"];
  return `${Number((ns / by).toPrecision(4))} ${unit}`;
}
const when = (day) => new Date(day * DAY).toISOString().slice(0, 10);
// A day is shown by its name, wherever the reader's clock stands.
function local(day) {
  const [year, month, date] = when(day).split("-").map(Number);
  return new Date(year, month - 1, date).getTime();
}
function rows({ days, ns, commits, levels, changes }) {
  const nights = days.map((day, k) => ({ day: local(day), when: when(day), ns: ns[k],
    said: time(ns[k]), commit: data.commits[commits[k]] || "?" }));
  const edges = [0, ...changes.map((change) => change.at), days.length];
  return {
    nights,
    levels: levels.flatMap((level, k) => [edges[k], edges[k + 1] - 1].map((at) => (
      { day: local(days[at]), ns: level, level: k }))),
    changes: changes.map((change, k) => ({ day: local(days[change.at]), when: when(days[change.at]),
      ns: levels[k + 1], slower: change.slower, said: change.said, commit: change.commits })),
  };
}
async function all() {
  for (const [id, series] of Object.entries(data.series)) {
    const shown = rows(series);
    await draw(id, { ...data.charts[series.times][Number(shown.changes.length > 0)], datasets: shown });
  }
}
all();
for (const details of document.querySelectorAll("details.nights")) {
  details.addEventListener("toggle", () => {
    const body = details.querySelector("tbody");
    if (body.rows.length) return;
    for (const night of rows(data.series[details.dataset.of]).nights) {
      const row = body.insertRow();
      for (const text of [night.when, night.said, night.commit]) row.insertCell().textContent = text;
    }
  });
}
