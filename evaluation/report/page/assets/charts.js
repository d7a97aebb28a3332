// The curves: lines over the budgets, bars per corruption, and a table of numbers below each.
"use strict";
const METRICS = {
  dice: { title: "Dice", percent: true, unit: "%" },
  iou: { title: "IoU", percent: true, unit: "%" },
  hd95_mm: { title: "HD95", percent: false, unit: Report.data.surface_unit, lessIsBetter: true },
  nsd: { title: "NSD", percent: true, unit: "%" },
  ece: { title: "ECE", percent: false, unit: "", lessIsBetter: true },
  brier: { title: "Brier score", percent: false, unit: "", lessIsBetter: true },
};
// evaluations of earlier versions have no calibration
Report.METRICS = Object.fromEntries(Report.data.table.metrics.map((key) => [key, METRICS[key]]));

Report.charts = (() => {
  const { data, element, text, words, METRICS } = Report;
  // Okabe and Ito's, told apart with any colour vision; on dark ground the dark ones are lighter
  const LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07A00", "#2F93C9", "#8A7D00", "#7F3C8D", "#8C564B"];
  const DARK = ["#56A8E0", "#FF8A4C", "#2FC79A", "#E29CC4", "#F0B431", "#8FD0F5", "#D9CC3C", "#C08BD0", "#C49A8F"];
  const SEVERITIES = {
    light: ["#C6DBEF", "#9ECAE1", "#6BAED6", "#3182BD", "#08519C"],
    dark: ["#E3F0FB", "#A9D0F0", "#6FAEE0", "#3F86C4", "#2A5F96"],
  };
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "hexagon"];
  const DASHES = ["solid", "dash", "dashdot", "dot", "longdash"];
  // of a comparison: [name, role] of every attack, the worst of all first, which alone is shown until others are asked for
  const attacks = [...new Map(data.panels.flatMap((p) => p.attacks ?? []))];
  const attackNames = attacks.map(([name]) => name);
  const state = { metric: "dice", label: "mean", off: new Set(attackNames.slice(1).map((name) => `a:${name}`)), printing: false };
  const names = [...new Set(data.panels.flatMap((p) => p.series.filter((s) => p.kind === "lines" || s.role === "model").map((s) => s.name)))];
  const categories = [...new Set(data.panels.filter((p) => p.switch === "corruptions").flatMap((p) => p.x))];
  const roles = Object.fromEntries(data.panels.flatMap((p) => p.series.map((s) => [s.name, s.role])));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const labelTitle = (key) => data.label_names[key] ?? key;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const isDark = () => dark.matches && !state.printing;

  const isOn = (series) => !state.off.has(series.name) && !state.off.has(`a:${series.attack}`);
  const metricTitle = () => METRICS[state.metric].title + (state.label === "mean" ? "" : `, ${labelTitle(state.label)}`);
  const seriesTitle = (s) => (s.attack && s.attack !== attackNames[0] ? `${s.name}, ${s.attack}` : s.name);

  // of a comparison: colours and symbols tell models apart, dashes attacks
  function styleOfAttack(name) {
    return { colour: colour("--ink"), dash: DASHES[attackNames.indexOf(name) % DASHES.length], width: 2 };
  }

  function style(name, attack) {
    if (attack && attacks.length > 1) return { ...style(name), dash: styleOfAttack(attack).dash };
    if (roles[name] === "worst") return { colour: colour("--ink"), symbol: "circle", dash: "solid", width: 4, size: 1 };
    const i = names.indexOf(name);
    const own = { symbol: SYMBOLS[i % SYMBOLS.length], dash: DASHES[i % DASHES.length], width: 2, size: 8 };
    if (roles[name] === "control") return { ...own, colour: colour("--control") };
    return { ...own, colour: (isDark() ? DARK : LIGHT)[i % LIGHT.length] };
  }

  // what a series shows of the metric and label: values, ends of the interval
  function shown(series) {
    if (state.metric !== "dice") return { values: series.values[state.metric], low: null, high: null };
    if (state.label !== "mean" && series.labels[state.label]) return series.labels[state.label];
    return { values: series.values.dice, low: series.low, high: series.high };
  }

  const scaled = (value) =>
    value === null || value === undefined ? null : METRICS[state.metric].percent ? 100 * value : value;

  function withInterval(of, i) {
    const said = text(state.metric, of.values[i]);
    if (!of.low || of.low[i] === null || of.values[i] === null) return said;
    return `${said} [${text(state.metric, of.low[i])}, ${text(state.metric, of.high[i])}]`;
  }

  // Plotly reads tags in what it draws
  const plain = (name) => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  const shownName = (panel, name) => (panel.switch === "corruptions" ? words(name) : name);

  function lines(panel) {
    const traces = [];
    const drawn = panel.series.filter(isOn);
    for (const series of drawn) {
      const of = shown(series);
      const there = of.values.map((v, i) => i).filter((i) => of.values[i] !== null);
      const look = style(series.name, series.attack);
      // the worst of all lies on the lowest attack, whose band is then its own
      const covered = series.role === "worst" && drawn.some((s) => s.role === "attack");
      if (of.low && there.length > 1 && !covered) {
        const ends = [...there.map((i) => of.high[i]), ...there.toReversed().map((i) => of.low[i])];
        traces.push({
          x: [...there, ...there.toReversed()], y: ends.map(scaled), fill: "toself", mode: "lines",
          fillcolor: look.colour, opacity: 0.13, line: { width: 0 }, hoverinfo: "skip", showlegend: false,
        });
      }
      traces.push({
        x: there, y: there.map((i) => scaled(of.values[i])), name: plain(seriesTitle(series)), mode: "lines+markers",
        line: { color: look.colour, width: look.width, dash: look.dash },
        marker: { color: look.colour, symbol: look.symbol, size: look.size },
        customdata: there.map((i) => withInterval(of, i)),
        hovertemplate: "%{customdata}",
      });
    }
    // widest last, so that it does not hide what it is the lowest of
    return traces.sort((a, b) => (b.line.width > 3) - (a.line.width > 3));
  }

  function bars(panel) {
    const at = panel.x.map((_, i) => i).filter((i) => panel.switch !== "corruptions" || !state.off.has(`x:${panel.x[i]}`));
    const series = panel.series.filter((s) => s.role !== "model" || !state.off.has(s.name));
    const palette = SEVERITIES[isDark() ? "dark" : "light"];
    return series.map((s, n) => {
      const of = shown(s);
      const error = of.low && {
        type: "data", symmetric: false, color: colour("--ink"), thickness: 1, width: 0,
        array: at.map((i) => scaled(of.high[i]) - scaled(of.values[i])),
        arrayminus: at.map((i) => scaled(of.values[i]) - scaled(of.low[i])),
      };
      const fill = s.role === "severity" ? palette[n % palette.length] : s.role === "model" ? style(s.name).colour : colour("--clean");
      return {
        type: "bar", x: at.map((i) => plain(shownName(panel, panel.x[i]))), y: at.map((i) => scaled(of.values[i])),
        name: plain(s.name), marker: { color: fill }, ...(error ? { error_y: error } : {}),
        customdata: at.map((i) => withInterval(of, i)), hovertemplate: "%{x}: %{customdata}",
      };
    });
  }

  function layout(panel, width) {
    const metric = METRICS[state.metric];
    const drawn = {
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", width, height: 360,
      margin: { l: 56, r: 12, t: 8, b: 46 }, showlegend: panel.kind === "bars" && panel.series.length > 1,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
      hovermode: panel.kind === "lines" ? "x unified" : "closest",
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      bargap: 0.2, bargroupgap: 0.05,
      yaxis: {
        title: { text: metric.unit ? `${metric.title} (${metric.unit})` : metric.title }, gridcolor: colour("--grid"), zerolinecolor: colour("--line"),
        ...(metric.percent ? { range: [0, 102] } : { rangemode: "tozero" }), fixedrange: true,
      },
      xaxis: { title: { text: panel.x_title }, fixedrange: true, automargin: true, gridcolor: "rgba(0,0,0,0)", linecolor: colour("--line") },
    };
    if (panel.kind === "lines") {
      Object.assign(drawn.xaxis, {
        tickvals: panel.x.map((_, i) => i), ticktext: panel.x.map(plain), range: [-0.15, panel.x.length - 0.85], zeroline: false,
      });
    } else {
      // few bars are no blocks
      const n = panel.x.length;
      const edge = 0.5 + Math.max(0, (4 - n) / 2);
      if (n < 4) drawn.xaxis.range = [-edge, n - 1 + edge];
    }
    if (panel.clean) {
      const value = state.metric === "dice" && state.label in panel.clean.labels ? panel.clean.labels[state.label] : panel.clean.values[state.metric];
      if (value !== null) {
        const y = scaled(value);
        drawn.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: colour("--ink"), width: 1, dash: "dash" } }];
        drawn.annotations = [{ text: `clean ${text(state.metric, value)}`, xref: "paper", x: 1, xanchor: "right", y, yanchor: "bottom", showarrow: false, font: { size: 12 } }];
      }
    }
    return drawn;
  }

  function numbers(panel, place) {
    const table = element("table");
    table.append(element("caption", `${panel.title}: ${metricTitle()}`));
    const head = element("tr");
    head.append(element("th", panel.x_title || ""), ...panel.x.map((x) => element("th", shownName(panel, x), { scope: "col" })));
    table.createTHead().append(head);
    const body = table.createTBody();
    for (const series of panel.series) {
      const of = shown(series);
      const row = element("tr");
      row.append(element("th", seriesTitle(series), { scope: "row" }));
      row.append(...panel.x.map((_, i) => element("td", of.values[i] === null ? "" : withInterval(of, i))));
      body.append(row);
    }
    place.replaceChildren(table);
  }

  const places = data.panels.map((panel, i) => {
    const shownFirst = panel.series.filter((s) => !s.attack || s.attack === attackNames[0]);
    const wide = panel.x.length * shownFirst.length > 24 || data.panels.length === 1;
    const place = element("div", null, { class: wide ? "panel" : "panel half" });
    const heading = element("h3", panel.title);
    place.append(heading);
    const chart = element("div", null, {
      class: "chart", id: `chart-${i}`, role: "img", "aria-label": `${panel.title}; its numbers are in the table below it`,
    });
    const details = element("details");
    const table = element("div", null, {
      class: "scroll", id: `numbers-${i}`, tabindex: "0", role: "region", "aria-label": `Numbers: ${panel.title}`,
    });
    details.append(element("summary", "Numbers of this figure"), table);
    place.append(chart, details);
    document.getElementById("charts").append(place);
    return { chart, table, heading };
  });

  function draw() {
    data.panels.forEach((panel, i) => {
      const { chart, table, heading } = places[i];
      heading.textContent = titleOf(panel);
      const traces = panel.kind === "lines" ? lines(panel) : bars(panel);
      const width = state.printing ? 660 : Math.max(chart.clientWidth, 240);
      Plotly.react(chart, traces, layout(panel, width), { displayModeBar: false });
      numbers(panel, table);
    });
    document.querySelectorAll("#series svg").forEach((svg) => svg.replaceWith(swatchOfSeries(svg.dataset.name)));
    document.querySelectorAll("#attacks svg").forEach((svg) => svg.replaceWith(swatchOfAttack(svg.dataset.name)));
  }

  function chooseLabel(key) {
    state.label = key;
    const select = document.getElementById("curve-label");
    if (select) select.value = key;
  }

  // which attacks are drawn, where it is not the worst of all alone, and which label
  function titleOf(panel) {
    const on = (panel.attacks ?? []).map(([name]) => name).filter((name) => !state.off.has(`a:${name}`));
    const usual = !panel.attacks || (on.length === 1 && on[0] === attackNames[0]);
    const title = usual ? panel.title : `${panel.title_of_others}: ${on.join(", ") || "none is chosen"}`;
    return state.label === "mean" ? title : `${title}: ${labelTitle(state.label)}`;
  }

  const swatchOfSeries = (name) => swatch(name, style(name, attackNames[0]));
  const swatchOfAttack = (name) => swatch(name, styleOfAttack(name));

  // a piece of the line, as a legend has it
  function swatch(name, look) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "swatch");
    svg.setAttribute("aria-hidden", "true");
    svg.dataset.name = name;
    const line = document.createElementNS(svg.namespaceURI, "line");
    const dash = { solid: "", dash: "7 4", dashdot: "7 3 2 3", dot: "2 3", longdash: "11 4" }[look.dash];
    const drawn = { x1: 0, x2: 26, y1: 6, y2: 6, stroke: look.colour, "stroke-width": look.width, "stroke-dasharray": dash };
    for (const [key, value] of Object.entries(drawn)) line.setAttribute(key, value);
    svg.append(line);
    return svg;
  }

  function controls() {
    const metrics = document.getElementById("metrics");
    for (const [key, { title }] of Object.entries(METRICS)) {
      metrics.append(Report.choice("radio", "metric", key, title, key === state.metric, () => {
        state.metric = key;
        if (key !== "dice") chooseLabel("mean"); // labels have Dice alone
        draw();
      }));
    }
    const select = document.getElementById("curve-label");
    if (select) {
      const labels = Object.keys(data.panels[0]?.series[0]?.labels ?? {});
      Report.option(select, "mean", "foreground mean");
      labels.forEach((key) => Report.option(select, key, `${labelTitle(key)} (Dice)`));
      select.parentElement.hidden = !labels.length;
      select.addEventListener("change", () => {
        state.label = select.value;
        if (state.label !== "mean") {
          state.metric = "dice";
          metrics.querySelector("input[value=dice]").checked = true;
        }
        draw();
      });
    }
    switches("series", names, (name) => name, swatchOfSeries, roles);
    if (document.getElementById("attacks")) {
      const offered = attackNames.length > 1 ? attackNames : [];
      switches("attacks", offered, (name) => `a:${name}`, swatchOfAttack, Object.fromEntries(attacks));
    }
    switches("corruptions", categories, (name) => `x:${name}`, () => "");
    document.getElementById("curve-controls").hidden = false;
  }

  function switches(id, of, key, picture, roleOf = {}) {
    const place = document.getElementById(id);
    place.hidden = !of.length;
    const list = place.querySelector(".choices");
    for (const name of of) {
      const label = Report.choice("checkbox", id, name, "", !state.off.has(key(name)), (input) => {
        if (input.checked) state.off.delete(key(name)); else state.off.add(key(name));
        draw();
      });
      label.append(picture(name), roleOf[name] === "control" ? `${name} (control)` : id === "corruptions" ? words(name) : name);
      list.append(label);
    }
  }

  function start() {
    if (!data.panels.length) {
      document.getElementById("charts").replaceWith(element("p", "Nothing was run but the clean cases.", { class: "nothing" }));
      return;
    }
    controls();
    draw();
    let waiting;
    window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 150); });
    dark.addEventListener("change", draw);
  }

  return { start, draw, print: (on) => { state.printing = on; if (data.panels.length) draw(); } };
})();
