// The table of cases of a page of scores: a group of measures, of one model or of all beside each other.
"use strict";
Report.METRICS = Report.data.measures;
Report.cases = (() => {
  const { data, METRICS } = Report;
  const { table } = data;
  const byId = (id) => document.getElementById(id);
  const several = table.models.length > 1;
  const state = { group: table.groups[0], model: null, label: 0 };
  let made; // the table

  function columns() {
    const models = table.models.map((_, m) => m).filter((m) => state.model === null || m === state.model);
    return state.group.measures.flatMap((measure) => models.map((model) => ({
      title: several && state.model === null ? `${METRICS[measure].title}, ${table.models[model]}` : METRICS[measure].title,
      measure, model,
    })));
  }

  const value = (column, at) => table.values[column.model][state.label][table.measures.indexOf(column.measure)][at];
  const name = (at) => table.cases[at] + (table.patients ? ` (${table.patients[at]})` : "");

  // the worst case of the first model on top
  function columnsChanged() {
    const shown = columns();
    const { by } = state.group;
    made.show(shown, shown.findIndex((c) => c.measure === by), METRICS[by].lessIsBetter === true);
  }

  function start() {
    made = Report.caseTable({
      metric: (column) => column.measure, value, words: name, head: name,
      caption: () => `${state.group.title}, ${table.labels[state.label][1]}`,
    });
    table.groups.forEach((g, i) => Report.option(byId("columns"), i, g.title));
    byId("columns").addEventListener("change", (e) => { state.group = table.groups[e.target.value]; columnsChanged(); });
    if (byId("case-model")) {
      Report.option(byId("case-model"), "", "all, side by side");
      table.models.forEach((model, i) => Report.option(byId("case-model"), i, model));
      byId("case-model").addEventListener("change", (e) => {
        state.model = e.target.value === "" ? null : Number(e.target.value);
        columnsChanged();
      });
    }
    if (byId("case-label")) {
      table.labels.forEach(([, title], i) => Report.option(byId("case-label"), i, title));
      byId("case-label").addEventListener("change", (e) => { state.label = Number(e.target.value); made.draw(); });
    }
    byId("case-controls").hidden = false;
    columnsChanged();
  }

  return { start };
})();
