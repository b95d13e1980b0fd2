// When live pages ask: not while nobody can see them, not after nobody touched them for long,
// so that an open page does not keep a session alive by itself.
"use strict";

const LIVE_IDLE_MS = 20 * 60 * 1000;

// Calls start() and stop() as the page goes in and out of use.
function whileInUse(start, stop, said) {
  let wanted = true;
  let running = false;
  let touched = Date.now();
  const apply = () => {
    const idle = Date.now() - touched > LIVE_IDLE_MS;
    const run = wanted && !document.hidden && !idle;
    if (run === running) return;
    running = run;
    if (run) start(); else stop();
    said(run ? "live" : !wanted ? "paused" : idle ? "idle" : "hidden");
  };
  for (const kind of ["pointerdown", "keydown", "pointermove", "scroll"]) {
    addEventListener(kind, () => { touched = Date.now(); if (!running) apply(); }, { passive: true });
  }
  document.addEventListener("visibilitychange", apply);
  setInterval(apply, 10000);
  const button = document.getElementById("pause");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      wanted = !wanted;
      button.textContent = wanted ? "Pause" : "Go on";
      button.setAttribute("aria-pressed", String(!wanted));
      apply();
    });
  }
  apply();
}
