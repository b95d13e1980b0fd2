// Takes the set-up code from the link's fragment, which no server sees, into the form.
"use strict";

const code = decodeURIComponent(location.hash.slice(1));
const field = document.getElementById("token");
if (field && code && !code.startsWith("main")) {
  field.value = code;
  history.replaceState(null, "", location.pathname);
  document.getElementById("name").focus();
}
