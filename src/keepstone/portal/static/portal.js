// SPDX-License-Identifier: Apache-2.0
// What pages do beside htmx: copying, a form that is sent once, nothing that moves under a press, and tables that are charts too.
"use strict";

function prepare(root) {
  for (const button of root.querySelectorAll("button.copy")) button.hidden = false;
  if (window.uPlot) root.querySelectorAll(".chart:empty").forEach(draw);
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

// Nothing moves under a press: what has come meanwhile is shown after it. Leaving a field draws the plan above a button
// anew, and it is the press of that button that leaves the field: the button would be elsewhere before it is let go.
let released = Promise.resolve();
let release = () => {};
document.addEventListener("pointerdown", (event) => {
  release();
  // Where another button opens a menu, nobody hears of its end.
  if (event.button === 0) released = new Promise((resolve) => { release = resolve; });
}, true);
// As a task of its own, for a click comes after its end and before the next task.
for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => setTimeout(release), true);
document.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
  ctx.fetch = async (...request) => {
    const response = await fetch(...request);
    await released;
    return response;
  };
});
document.addEventListener("htmx:sse:before:message", ({ detail }) => detail.waitUntil(released));

document.addEventListener("htmx:after:swap", () => prepare(document));
prepare(document);

// A chart is drawn of a table that stands beside it: a day a row, a line a column.
function draw(chart) {
  const table = document.getElementById(chart.dataset.table);
  const rows = [...table.tBodies[0].rows];
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const look = getComputedStyle(document.documentElement);
  const of = (name) => look.getPropertyValue(name).trim();
  const unit = (value) => {
    const step = Math.min(5, Math.floor(Math.log2(Math.max(1, Math.abs(value))) / 10));
    return `${+(value / 1024 ** step).toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][step]}`;
  };
  const day = (moment) => new Date(moment * 1e3).toISOString().slice(0, 10);
  const axis = { stroke: of("--pico-color"), grid: { stroke: of("--line"), width: 1 }, ticks: { stroke: of("--line") } };
  const lines = names.slice(1).map((label, at) => ({
    label, stroke: of(["--waiting", "--pico-primary"][at]), width: 2, dash: at ? [] : [6, 4], value: (_, value) => value == null ? "–" : unit(value),
  }));
  const data = [
    rows.map((row) => Date.parse(row.querySelector("time").dateTime) / 1000),
    ...lines.map((_, at) => rows.map((row) => +row.querySelectorAll("data")[at].value)),
  ];
  const size = () => ({ width: chart.clientWidth, height: 260 });
  const plot = new uPlot({
    ...size(),
    tzDate: (moment) => uPlot.tzDate(new Date(moment * 1e3), "Etc/UTC"),
    series: [{ label: names[0], value: (_, moment) => moment == null ? "–" : day(moment) }, ...lines],
    scales: { y: { range: (_, low, high) => [0, high * 1.05 || 1] } },
    axes: [{ ...axis, space: 90, values: (_, ticks) => ticks.map(day) }, { ...axis, size: 80, values: (_, ticks) => ticks.map(unit), incrs: Array.from({ length: 56 }, (_, power) => 2 ** power) }],
  }, data, chart);
  new ResizeObserver(() => plot.setSize(size())).observe(chart);
}
