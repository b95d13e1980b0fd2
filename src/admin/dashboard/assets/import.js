// Puts the lines of a chosen file into the field that the form sends.
"use strict";

const file = document.getElementById("file");
const lines = document.getElementById("lines");
const problem = document.getElementById("file-error");

if (file && lines) {
  document.getElementById("file-field").hidden = false;
  file.addEventListener("change", async () => {
    const chosen = file.files[0];
    problem.textContent = "";
    if (!chosen) return;
    if (chosen.size > Number(file.dataset.bytesMax)) {
      problem.textContent = "The file is larger than 4 MiB. Import it by latchkey import.";
      return;
    }
    try {
      const bytes = await chosen.arrayBuffer();
      lines.value = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
      lines.focus();
    } catch {
      problem.textContent = "The file cannot be read as text in UTF-8.";
    }
  });
}
