// The table of cases: any metric of any group of runs, sorted by a heading, filtered by name and value.
"use strict";
Report.cases = (() => {
  const { data, element, text, words, METRICS } = Report;
  const table = data.table;
  const METRIC_KEYS = Object.keys(METRICS);
  const byId = (id) => document.getElementById(id);
  const state = { group: "", metric: "dice", label: 0, sort: null, down: false };
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

  function order(rows, shown) {
    if (state.sort === null) return rows;
    const key = state.sort < 0 ? (at) => table.cases[at] : (at) => value(shown[state.sort], at);
    const sign = state.down ? -1 : 1;
    // what is undefined comes last either way
    return rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const less = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
      return sign * less || a - b;
    });
  }

  function filtered(shown) {
    const name = byId("filter-name").value.toLowerCase();
    const most = byId("filter-value").valueAsNumber;
    const column = shown[byId("filter-column").selectedIndex];
    const unit = METRICS[state.metric].percent ? 100 : 1;
    return table.cases.map((_, i) => i).filter((i) => {
      if (!table.cases[i].toLowerCase().includes(name)) return false;
      if (Number.isNaN(most) || !column) return true;
      const found = value(column, i);
      return found !== null && unit * found <= most;
    });
  }

  function heading(title, at) {
    const sorted = state.sort === at ? (state.down ? "descending" : "ascending") : "none";
    const cell = element("th", null, { scope: "col", "aria-sort": sorted });
    const button = element("button", title, { type: "button" });
    button.addEventListener("click", () => {
      state.down = state.sort === at && !state.down;
      state.sort = at;
      draw();
      byId("cases").querySelectorAll("thead button")[at + 1].focus();
    });
    cell.append(button);
    return cell;
  }

  function line(at, shown) {
    const row = element("tr", null, { "data-case": table.cases[at] });
    const head = element("th", null, { scope: "row" });
    const name = table.cases[at] + (table.folds[at] ? ` (fold ${table.folds[at]})` : "");
    if (pictured.has(table.cases[at])) {
      const button = element("button", name, { type: "button" });
      button.addEventListener("click", () => Report.viewer.show(table.cases[at], true));
      head.append(button);
    } else {
      head.append(name);
    }
    row.append(head);
    for (const column of shown) {
      const found = value(column, at);
      const cell = element("td", text(state.metric, found), { class: "value" });
      if (found !== null && METRICS[state.metric].percent) cell.style.setProperty("--v", found);
      row.append(cell);
    }
    return row;
  }

  function draw() {
    const shown = columns();
    const rows = order(filtered(shown), shown);
    const made = element("table");
    made.append(element("caption", `${METRICS[state.metric].title}, ${table.labels[state.label][1]}`, { class: "hidden-text" }));
    const head = element("tr");
    head.append(heading("case", -1), ...shown.map((c, i) => heading(c.title, i)));
    made.createTHead().append(head);
    made.createTBody().append(...rows.map((at) => line(at, shown)));
    byId("cases").replaceChildren(made);
    byId("count").textContent = `${rows.length} of ${table.cases.length} cases.`;
    mark();
  }

  // the row of the case whose pictures are shown
  function mark() {
    for (const row of byId("cases").querySelectorAll("tbody tr")) {
      row.setAttribute("aria-current", String(row.dataset.case === Report.viewer.current()));
    }
  }

  function columnsChanged() {
    const select = byId("filter-column");
    const shown = columns();
    select.replaceChildren();
    shown.forEach((c, i) => Report.option(select, i, c.title));
    // the hardest budget first: where Linf was run, its last
    const linf = shown.map((c, i) => i).filter((i) => table.runs[shown[i].run].norm === "linf");
    state.sort = linf.at(-1) ?? shown.length - 1;
    state.down = METRICS[state.metric].lessIsBetter === true;
    select.selectedIndex = state.sort;
    draw();
  }

  function start() {
    groups.forEach((g) => Report.option(byId("columns"), g, g));
    state.group = groups[0] ?? "";
    for (const [key, { title }] of Object.entries(METRICS)) Report.option(byId("case-metric"), key, title);
    byId("columns").addEventListener("change", (e) => { state.group = e.target.value; columnsChanged(); });
    byId("case-metric").addEventListener("change", (e) => { state.metric = e.target.value; columnsChanged(); });
    if (byId("case-label")) {
      table.labels.forEach(([, name], i) => Report.option(byId("case-label"), i, name));
      byId("case-label").addEventListener("change", (e) => { state.label = Number(e.target.value); draw(); });
    }
    for (const id of ["filter-name", "filter-value", "filter-column"]) byId(id).addEventListener("input", draw);
    byId("case-controls").hidden = false;
    columnsChanged();
  }

  // Dice of a case under one attack, for the pictures
  function dice(name, model, attack) {
    const at = table.cases.indexOf(name);
    const run = table.runs.findIndex((r) => (attack === null ? r.kind === "clean"
      : r.kind === "attack" && r.attack === attack.attack && (r.norm ?? "") === attack.norm && (r.epsilon_text ?? "") === attack.epsilon_text));
    return run < 0 ? null : table.values[model][run][0][0][at];
  }

  return { start, mark, dice };
})();
