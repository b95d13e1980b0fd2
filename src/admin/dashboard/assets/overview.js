// Draws the overview and keeps it up to date.
"use strict";

const plotsAt = document.getElementById("plots");
const span = plotsAt.dataset.span;
const state = document.getElementById("live-state");
const plots = new Map();

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const number = (value) => {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (Math.abs(value) < 0.01) return "< 0.01";
  return value.toFixed(Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0);
};
const percent = (share) => {
  const value = share * 100;
  if (value === 0) return "0 %";
  if (value < 0.1) return "< 0.1 %";
  return `${value.toFixed(value < 10 ? 1 : 0)} %`;
};

// What each plot draws: labels, colours and values of its lines.
const quantiles = (of) => [
  ["median", "--plot-1", of.p50],
  ["95 % within", "--plot-2", of.p95],
  ["99 % within", "--plot-3", of.p99],
];
const DRAWN = {
  requests: (data) => [
    ["allowed", "--plot-1", data.requests.allowed],
    ["refused", "--plot-3", data.requests.refused],
    ["errors", "--plot-6", data.requests.error],
    ["abandoned", "--plot-4", data.requests.abandoned],
  ],
  latency: (data) => quantiles(data.latency_ms),
  decision: (data) => quantiles(data.decision_us),
  commit: (data) => quantiles(data.store.commit_ms),
  limiter: (data) => [["full", "--plot-1", data.limiter_fill.map((fill) => fill * 100)]],
  refusals: (data) => data.refusals.slice(0, 6).map((series, place) =>
    [series.code, `--plot-${place + 1}`, series.per_second]),
};

function draw(data) {
  for (const place of document.querySelectorAll("[data-plot]")) {
    const lines = DRAWN[place.dataset.plot](data);
    const instead = place.parentElement.querySelector(".plot-instead");
    if (instead) instead.hidden = true;
    place.hidden = lines.length === 0;
    if (lines.length === 0) continue;
    const values = [data.times, ...lines.map((line) => line[2])];
    const key = lines.map((line) => line[0]).join();
    const known = plots.get(place);
    if (known && known.key === key) {
      known.plot.setData(values);
      continue;
    }
    if (known) known.plot.destroy();
    plots.set(place, { key, plot: new uPlot(options(place, lines), values, place) });
  }
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const SPAN_S = span === "24h" ? 86400 : 900;

// The numbers of an axis, all with as many places as the step between them needs.
function axisNumbers(ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 1;
  const whole = (places) => Math.abs(step * 10 ** places - Math.round(step * 10 ** places)) < 1e-6;
  const places = [0, 1, 2].find(whole) ?? 3;
  const format = { minimumFractionDigits: places, maximumFractionDigits: places };
  return ticks.map((tick) => (tick === 0 ? "0" : tick.toLocaleString("en", format)));
}

// What a line's legend says: the value under the pointer or, without one, the latest.
function told(plot, value, line, at) {
  return number(at === null || at === undefined ? plot.data[line][plot.data[line].length - 1] : value);
}

function options(place, lines) {
  const axis = { stroke: css("--muted"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: `12px ${css("--sans")}` };
  return {
    width: place.clientWidth || 300,
    height: place.classList.contains("short") ? 150 : 220,
    cursor: { y: false, points: { size: 6 } },
    legend: { live: true, markers: { width: 0, fill: (plot, line) => (line ? plot.series[line].stroke() : null) } },
    scales: { x: { range: (_, first, last) => [Math.max(last, Date.now() / 1000) - SPAN_S, Math.max(last, Date.now() / 1000)] }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, place.dataset.plot === "limiter" ? 1 : 0.1)] } },
    series: [
      { label: "at", value: (_, value) => (value === null || value === undefined ? "latest" : clock.format(value * 1000)) },
      ...lines.map(([label, colour]) => ({
        label, stroke: css(colour), width: 2, spanGaps: false, value: told,
        // A value between two steps without one is no line.
        points: { show: true, size: 4, width: 0, fill: css(colour), filter: alone },
      })),
    ],
    axes: [
      { ...axis, space: 60, size: 34, values: (_, ticks) => ticks.map((tick) => clock.format(tick * 1000)) },
      { ...axis, size: 54, values: (_, ticks) => axisNumbers(ticks) },
    ],
  };
}

// Where a value has no neighbour to draw a line to.
function alone(plot, line) {
  const values = plot.data[line];
  const none = (at) => values[at] === null || values[at] === undefined;
  return values.flatMap((_, at) => (!none(at) && none(at - 1) && none(at + 1) ? [at] : []));
}

function figures(data) {
  const last = (series) => (series.length ? series[series.length - 1] : 0);
  const all = last(data.requests.allowed) + last(data.requests.refused) + last(data.requests.error);
  const values = {
    requests: number(all),
    refused: percent(all > 0 ? last(data.requests.refused) / all : 0),
    latency: number(data.latency_ms.p95.length ? last(data.latency_ms.p95) : null),
    limiter: percent(last(data.limiter_fill)),
    shops: data.now.shops.toLocaleString("en"),
    keys: data.now.api_keys.toLocaleString("en"),
  };
  for (const [name, value] of Object.entries(values)) {
    const at = document.querySelector(`[data-value="${name}"]`);
    if (!at || at.textContent === value) continue;
    at.textContent = value;
    const unit = at.nextElementSibling;
    if (unit) unit.hidden = value === "–";
  }
  const store = document.querySelector("[data-value=store] .badge");
  store.textContent = data.now.store_writable ? "accepted" : "refused";
  store.className = `badge ${data.now.store_writable ? "good" : "bad"}`;
}

function codes(data) {
  const place = document.getElementById("codes");
  place.hidden = data.refusals.length === 0;
  document.querySelector("[data-none]").hidden = data.refusals.length > 0;
  place.querySelector("tbody").replaceChildren(...data.refusals.map((series) => {
    const row = document.createElement("tr");
    const head = row.appendChild(document.createElement("th"));
    head.scope = "row";
    head.appendChild(document.createElement("code")).textContent = series.code;
    const total = row.insertCell();
    total.className = "number";
    total.textContent = series.total.toLocaleString("en");
    const link = row.insertCell().appendChild(document.createElement("a"));
    link.href = `/refusals?code=${encodeURIComponent(series.code)}`;
    link.textContent = "Live";
    link.setAttribute("aria-label", `Live refusals with ${series.code}`);
    return row;
  }));
}

let timer = 0;
let latest = null;

async function update() {
  try {
    const answer = await fetch(`/live/overview?span=${span}`, { headers: { Accept: "application/json" }, redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 403) {
      state.textContent = "You are signed out. Reload the page to sign in again.";
      return;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    latest = await answer.json();
    figures(latest);
    codes(latest);
    draw(latest);
    state.textContent = `Live: figures of the last ${span === "24h" ? "minute" : "5 seconds"}.`;
  } catch {
    state.textContent = "latchkey does not answer. Trying again…";
  }
  timer = setTimeout(update, 5000);
}

whileInUse(update, () => clearTimeout(timer), (now) => {
  if (now === "paused") state.textContent = "Paused.";
  if (now === "idle") state.textContent = "Paused, because nobody was here. Move the pointer to go on.";
});

// Sizes and colours follow the window and the scheme.
function again() {
  for (const { plot } of plots.values()) plot.destroy();
  plots.clear();
  if (latest) draw(latest);
}
let resized = 0;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(again, 150); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
