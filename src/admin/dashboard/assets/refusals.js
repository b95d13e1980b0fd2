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
  time.textContent = clock.format(new Date(refusal.at));
  at(".badge").textContent = refusal.status;
  if (refusal.status >= 500) at(".badge").classList.add("bad");
  if (refusal.status === 429) at(".badge").classList.add("warn");
  at(".code").textContent = refusal.code;
  at(".request").textContent = refusal.request;
  at(".route").textContent = refusal.route ? `route ${refusal.route}` : "";
  at(".why").append(...prose(refusal.why));
  at(".client").textContent = refusal.client;
  at(".shop").textContent = refusal.shop;
  if (refusal.shop) at(".shop").href = `/shops/${encodeURIComponent(refusal.shop)}`; else at(".shop").remove();
  at(".credential").textContent = refusal.credential;
  at(".origin").textContent = refusal.origin;
  at(".explain").href = `/explore?event=${refusal.sequence}`;
  at(".explain").setAttribute("aria-label", `Explain the refusal of ${refusal.request}`);
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
  source = new EventSource(`/live/events?code=${code}&after=${latest}`);
  source.addEventListener("open", said);
  source.addEventListener("refusal", (event) => {
    latest = event.lastEventId;
    anchored(() => add(JSON.parse(event.data)));
  });
  source.addEventListener("missed", (event) => { missed += Number(event.data); said(); });
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

for (const time of body.querySelectorAll("time")) time.textContent = clock.format(new Date(time.dateTime));
