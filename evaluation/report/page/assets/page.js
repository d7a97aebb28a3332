// Starts the parts that the page has, and makes it ready for paper.
"use strict";
(() => {
  for (const part of ["charts", "cases", "viewer"]) Report[part]?.start();

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((d) => { d.open = true; });
    document.documentElement.dataset.printing = "";  // before the charts ask for colours
    Report.charts?.print(true);
  });
  window.addEventListener("afterprint", () => {
    closed.forEach((d) => { d.open = false; });
    delete document.documentElement.dataset.printing;
    Report.charts?.print(false);
  });
  document.documentElement.dataset.ready = "true";
})();
