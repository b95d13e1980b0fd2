// Small conveniences of every page. Nothing here is needed to do anything.
"use strict";

// A form that was sent is not sent again by a second click. It can be when the browser comes back.
document.addEventListener("submit", (event) => {
  for (const button of event.target.querySelectorAll("button[type=submit]")) {
    setTimeout(() => { button.disabled = true; }, 0);
  }
});
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button[type=submit]")) button.disabled = false;
});

// Escape closes what was opened, and goes back to what opened it.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = event.target.closest("details.danger[open], details.more[open]");
  if (!open) return;
  open.open = false;
  open.querySelector("summary").focus();
});

// The first field that has to be mended.
const invalid = document.querySelector("[aria-invalid=true]");
if (invalid) invalid.focus();

// Times in the reader's own zone and words.
const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
for (const time of document.querySelectorAll("time[datetime]")) {
  const at = new Date(time.dateTime);
  if (!Number.isNaN(at.getTime())) time.title = format.format(at);
}
