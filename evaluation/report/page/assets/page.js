// Starts the three parts, and makes the page ready for paper.
"use strict";
(() => {
  Report.charts.start();
  Report.cases.start();
  Report.viewer.start();

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((d) => { d.open = true; });
    Report.charts.print(true);
  });
  window.addEventListener("afterprint", () => {
    closed.forEach((d) => { d.open = false; });
    Report.charts.print(false);
  });
  document.documentElement.dataset.ready = "true";
})();
