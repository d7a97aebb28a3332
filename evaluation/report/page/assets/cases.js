// What the table of cases shows: any metric of any group of runs.
"use strict";
Report.cases = (() => {
  const { data, element, words, METRICS } = Report;
  const table = data.table;
  const METRIC_KEYS = Object.keys(METRICS);
  const byId = (id) => document.getElementById(id);
  const state = { group: "", metric: "dice", label: 0 };
  let made; // the table
  const pictured = new Set(data.pictures.map((p) => p.case));
  const several = table.models.length > 1;

  const groupOf = (run) => ({ clean: "", worst: "worst of all attacks" })[run.kind] ?? (run.attack === "noise" ? "noise (control)" : words(run.attack));
  const groups = [...new Set(table.runs.map(groupOf))].filter((g) => g);

  function runTitle(run) {
    if (run.kind === "clean") return "clean";
    if (run.kind === "shift") return `severity ${run.severity}`;
    const norm = { linf: "Linf", l2: "L2" }[run.norm] ?? "";
    return `${norm} ${run.epsilon_text}`.trim() || "no budget";
  }

  // in headings, where all models are nnU-Net trainers
  const PREFIX = "nnUNetTrainer";
  const isLong = table.models.every((m) => m.startsWith(PREFIX) && m.length > PREFIX.length);
  const short = (model) => (isLong ? model.slice(PREFIX.length) : model);

  // the clean case, then the chosen group; of a comparison every model beside each other
  function columns() {
    const runs = table.runs.map((run, i) => ({ run, i })).filter(({ run }) => run.kind === "clean" || groupOf(run) === state.group);
    return runs.flatMap(({ run, i }) => table.models.map((model, m) => ({
      title: several ? `${runTitle(run)}, ${short(model)}` : runTitle(run), run: i, model: m,
    })));
  }

  const value = (column, at) => table.values[column.model][column.run][state.label][METRIC_KEYS.indexOf(state.metric)][at];

  function head(at) {
    const name = table.cases[at] + (table.folds[at] ? ` (fold ${table.folds[at]})` : "");
    if (!pictured.has(table.cases[at])) return name;
    const button = element("button", name, { type: "button" });
    button.addEventListener("click", () => Report.viewer.show(table.cases[at], true));
    return button;
  }

  // the row of the case whose pictures are shown
  function mark() {
    for (const row of byId("cases").querySelectorAll("tbody tr")) {
      row.setAttribute("aria-current", String(row.dataset.case === Report.viewer.current()));
    }
  }

  function columnsChanged() {
    const shown = columns();
    // the hardest budget first: where Linf was run, its last
    const linf = shown.map((c, i) => i).filter((i) => table.runs[shown[i].run].norm === "linf");
    made.show(shown, linf.at(-1) ?? shown.length - 1, METRICS[state.metric].lessIsBetter === true);
  }

  function start() {
    made = Report.caseTable({
      metric: () => state.metric, value, head, words: (at) => table.cases[at], drawn: mark,
      caption: () => `${METRICS[state.metric].title}, ${table.labels[state.label][1]}`,
    });
    groups.forEach((g) => Report.option(byId("columns"), g, g));
    state.group = groups[0] ?? "";
    for (const [key, { title }] of Object.entries(METRICS)) Report.option(byId("case-metric"), key, title);
    byId("columns").addEventListener("change", (e) => { state.group = e.target.value; columnsChanged(); });
    byId("case-metric").addEventListener("change", (e) => { state.metric = e.target.value; columnsChanged(); });
    if (byId("case-label")) {
      table.labels.forEach(([, name], i) => Report.option(byId("case-label"), i, name));
      byId("case-label").addEventListener("change", (e) => { state.label = Number(e.target.value); made.draw(); });
    }
    byId("case-controls").hidden = false;
    columnsChanged();
  }

  return { start, mark };
})();
