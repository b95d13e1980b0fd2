// Adds refusals at the top of the table as they happen.
"use strict";

const ROWS_MAX = 300;
const place = document.getElementById("refusals");
const body = place.querySelector("tbody");
const row = document.getElementById("row");
const state = document.getElementById("live-state");
let latest = place.dataset.latest;
let source = null;
let missed = 0;

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

// The time alone says enough of what happened today.
function when(text) {
  const at = new Date(text);
  return (at.toDateString() === new Date().toDateString() ? clock : day).format(at);
}

// As the server writes sentences: with a capital at its start and a full stop at its end.
function sentence(text) {
  const bare = text.replace(/\.+$/, "");
  return bare.charAt(0).toUpperCase() + bare.slice(1) + ".";
}

// A path may break behind its slashes.
function breakable(path) {
  return path.split(/(?<=\/)/).flatMap((part) => [part, document.createElement("wbr")]);
}

// Backticks mark code.
function prose(text) {
  const parts = text.split("`");
  if (parts.length % 2 === 0) return [text];
  return parts.map((part, place) => {
    if (place % 2 === 0) return part;
    const code = document.createElement("code");
    code.textContent = part;
    return code;
  });
}

function add(refusal) {
  const made = row.content.cloneNode(true);
  const at = (selector) => made.querySelector(selector);
  const time = at("time");
  time.dateTime = refusal.at;
  time.textContent = when(refusal.at);
  at(".badge").textContent = refusal.status;
  if (refusal.status >= 500) at(".badge").classList.add("bad");
  if (refusal.status === 429) at(".badge").classList.add("warn");
  at(".code").textContent = refusal.code;
  at(".verb").textContent = refusal.method;
  at(".path").append(...breakable(refusal.path));
  at(".why").append(...prose(sentence(refusal.why)));
  at(".client").textContent = refusal.client;
  // What is known is a line of its own.
  const line = (selector, text) => {
    const part = at(selector);
    part.textContent = text;
    if (text) part.before(document.createElement("br")); else part.remove();
    return part;
  };
  line(".route", refusal.route && `route ${refusal.route}`);
  const shop = line(".shop", refusal.shop);
  if (refusal.shop) shop.href = `/shops/${encodeURIComponent(refusal.shop)}`;
  line(".credential", refusal.key_id);
  line(".origin", refusal.origin);
  at(".explain").href = `/explore?event=${refusal.id.split("-")[1]}`;
  at(".explain").setAttribute("aria-label", `Explain the refusal of ${refusal.method} ${refusal.path}`);
  body.prepend(made);
  while (body.rows.length > ROWS_MAX) body.deleteRow(-1);
  place.hidden = false;
  document.getElementById("none").hidden = true;
}

// New rows do not push away what is being read or about to be pressed.
function anchored(change) {
  const before = place.getBoundingClientRect().height;
  change();
  if (place.getBoundingClientRect().top < 0) {
    scrollBy({ top: place.getBoundingClientRect().height - before, behavior: "instant" });
  }
}

function said() {
  const lost = missed ? ` ${missed} more came too fast to be shown.` : "";
  state.textContent = `Live: new refusals appear at the top.${lost}`;
}

function start() {
  const code = encodeURIComponent(place.dataset.code);
  source = new EventSource(`/live/events?code=${code}&after=${encodeURIComponent(latest)}`);
  source.addEventListener("open", said);
  source.addEventListener("refusal", (event) => {
    latest = event.lastEventId;
    anchored(() => add(JSON.parse(event.data)));
  });
  source.addEventListener("missed", (event) => { missed += JSON.parse(event.data).count; said(); });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      state.textContent = "latchkey does not answer, or you are signed out. Reload the page.";
    }
  });
}

whileInUse(start, () => { if (source) source.close(); }, (now) => {
  if (now === "paused") state.textContent = "Paused. What happens meanwhile is added when you go on.";
  if (now === "idle") state.textContent = "Paused, because nobody was here. Move the pointer to go on.";
});

for (const time of body.querySelectorAll("time")) time.textContent = when(time.dateTime);
