// SPDX-License-Identifier: Apache-2.0
// What pages do beside htmx: copying, a form that is sent once, and tables that are charts too.
"use strict";

function prepare(root) {
  for (const button of root.querySelectorAll("button.copy")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  await navigator.clipboard.writeText(button.closest("figure").querySelector("code").textContent);
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1500);
});

// A second press of a button while its form is on its way does nothing; the service sees to that as well.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) { event.preventDefault(); return; }
  if (form.method === "post" && !("again" in form.dataset)) form.dataset.sent = "1";
});
window.addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

document.addEventListener("htmx:after:swap", () => prepare(document));
prepare(document);
