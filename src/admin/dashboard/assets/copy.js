// Buttons that copy what stands beside them.
"use strict";

for (const button of document.querySelectorAll("button[data-copy]")) {
  if (!navigator.clipboard && !document.execCommand) continue;
  button.hidden = false;
}

// The clipboard's own interface is only there on https and loopback.
async function copy(text, beside) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  beside.after(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser refused");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const word = button.querySelector("span");
  try {
    await copy(button.dataset.copy, button);
    word.textContent = "Copied";
  } catch {
    word.textContent = "Press Ctrl+C";
    const code = button.parentElement.querySelector("code");
    if (code) getSelection().selectAllChildren(code);
  }
  button.setAttribute("aria-live", "polite");
  setTimeout(() => { word.textContent = "Copy"; }, 2000);
});
