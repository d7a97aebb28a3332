// A table of cases: its headings sort it, the controls above it filter it by name and value.
"use strict";
// columns, of its caller, have a title; metric(column) is a key of Report.METRICS, value(column, at)
// that of the at-th case, words(at) what the filter of names looks in, head(at) the heading of its row
Report.caseTable = ({ metric, value, words, head, caption, drawn = () => {} }) => {
  const { data, element, text, METRICS } = Report;
  const { cases } = data.table;
  const byId = (id) => document.getElementById(id);
  const state = { columns: [], sort: null, down: false };

  function order(rows) {
    if (state.sort === null) return rows;
    const key = state.sort < 0 ? (at) => cases[at] : (at) => value(state.columns[state.sort], at);
    const sign = state.down ? -1 : 1;
    // what is undefined comes last either way
    return rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const less = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
      return sign * less || a - b;
    });
  }

  function filtered() {
    const name = byId("filter-name").value.toLowerCase();
    const limit = byId("filter-value").valueAsNumber;
    const column = state.columns[byId("filter-column").selectedIndex];
    const least = byId("filter-side")?.value === "least";
    return cases.map((_, i) => i).filter((i) => {
      if (!words(i).toLowerCase().includes(name)) return false;
      if (Number.isNaN(limit) || !column) return true;
      const found = value(column, i);
      if (found === null) return false;
      const shown = (METRICS[metric(column)].percent ? 100 : 1) * found;
      return least ? shown >= limit : shown <= limit;
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

  function line(at) {
    const row = element("tr", null, { "data-case": cases[at] });
    const first = element("th", null, { scope: "row" });
    first.append(head(at));
    row.append(first);
    for (const column of state.columns) {
      const found = value(column, at);
      const { percent, unbounded } = METRICS[metric(column)];
      const cell = element("td", text(metric(column), found), { class: "value" });
      if (found !== null && percent && !unbounded) cell.style.setProperty("--v", found);
      row.append(cell);
    }
    return row;
  }

  function draw() {
    const rows = order(filtered());
    const made = element("table");
    made.append(element("caption", caption(), { class: "hidden-text" }));
    const top = element("tr");
    top.append(heading("case", -1), ...state.columns.map((c, i) => heading(c.title, i)));
    made.createTHead().append(top);
    made.createTBody().append(...rows.map(line));
    byId("cases").replaceChildren(made);
    byId("count").textContent = `${rows.length} of ${cases.length} cases.`;
    drawn();
  }

  // other columns, sorted by one of them
  function show(columns, sort, down) {
    Object.assign(state, { columns, sort, down });
    const select = byId("filter-column");
    select.replaceChildren();
    columns.forEach((c, i) => Report.option(select, i, c.title));
    select.selectedIndex = sort;
    draw();
  }

  for (const id of ["filter-name", "filter-value", "filter-side", "filter-column"]) byId(id)?.addEventListener("input", () => draw());
  return { draw, show };
};
