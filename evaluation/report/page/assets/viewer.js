// The pictures of a case: image, perturbation, prediction before and after, along budgets and slices.
"use strict";
Report.viewer = (() => {
  const { data, element, text } = Report;
  const LEVELS = 7; // of a perturbation, on either side of none
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A900", "#7F3C8D", "#8C564B"];
  const NORMS = { linf: "Linf", l2: "L2 (RMS)", "": "no budget" };
  const EDGE = 384; // pixels of a canvas, about
  const byId = (id) => document.getElementById(id);
  const cases = [...new Set(data.pictures.map((p) => p.case))];
  const several = data.table.models.length > 1;
  const state = { case: null, norm: null, step: 0, slice: 0 };
  let loaded = []; // pictures of the case, with their planes

  async function planes(picture) {
    const packed = Uint8Array.from(atob(picture.data), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // (h, w) of one plane on one slice
  function plane(picture, at) {
    const [slices, h, w] = picture.shape;
    const start = (at * slices + Math.min(state.slice, slices - 1)) * h * w;
    return picture.planes.subarray(start, start + h * w);
  }

  const attacksOf = (picture) => picture.attacks.filter((a) => a.norm === state.norm || (state.norm === "" && !a.epsilon_text));
  const steps = () => loaded.map(attacksOf).reduce((a, b) => (b.length > a.length ? b : a), []);
  const attackTitle = (a) => (a.epsilon_text ? `${NORMS[a.norm] ?? a.norm} ${a.epsilon_text}` : `${a.attack}, no budget`);

  function diverging(t) {
    const end = t < 0 ? [94, 60, 153] : [230, 97, 1];
    return end.map((c) => 247 + (c - 247) * Math.abs(t));
  }

  function canvas(picture, pixels, said) {
    const [, h, w] = picture.shape;
    const scale = Math.max(1, Math.round(EDGE / Math.max(h, w)));
    const small = new OffscreenCanvas(w, h);
    const context = small.getContext("2d");
    const image = context.createImageData(w, h);
    for (let i = 0; i < h * w; i++) {
      const [r, g, b] = pixels(i);
      image.data.set([r, g, b, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    const made = element("canvas", null, { role: "img", "aria-label": said, width: w * scale, height: h * scale });
    const drawn = made.getContext("2d");
    drawn.imageSmoothingEnabled = false;
    drawn.drawImage(small, 0, 0, w * scale, h * scale);
    return { made, drawn, scale };
  }

  // along the edges between pixels of one label and others
  function contour(drawn, map, label, h, w, scale) {
    const inside = (y, x) => y >= 0 && x >= 0 && y < h && x < w && map[y * w + x] === label;
    drawn.beginPath();
    for (let y = 0; y <= h; y++) {
      for (let x = 0; x <= w; x++) {
        if (inside(y, x) !== inside(y - 1, x)) { drawn.moveTo(x * scale, y * scale); drawn.lineTo((x + 1) * scale, y * scale); }
        if (inside(y, x) !== inside(y, x - 1)) { drawn.moveTo(x * scale, y * scale); drawn.lineTo(x * scale, (y + 1) * scale); }
      }
    }
  }

  function overlay({ drawn, scale }, picture, prediction) {
    const [, h, w] = picture.shape;
    const truth = plane(picture, 1);
    for (let label = 1; label < picture.values.length; label++) {
      const colour = COLOURS[(label - 1) % COLOURS.length];
      if (prediction && byId("fill").checked) {
        drawn.fillStyle = `${colour}73`;
        for (let i = 0; i < h * w; i++) {
          if (prediction[i] === label) drawn.fillRect((i % w) * scale, Math.floor(i / w) * scale, scale, scale);
        }
      }
      if (!byId("contours").checked) continue;
      const kinds = prediction ? [[prediction, colour, 2], [truth, "#ffffff", 2]] : [[truth, "#ffffff", 2]];
      for (const [map, stroke, width] of kinds) {
        contour(drawn, map, label, h, w, scale);
        for (const [line, size] of [["#000000", width + 2], [stroke, width]]) {
          drawn.strokeStyle = line;
          drawn.lineWidth = size;
          drawn.stroke();
        }
      }
    }
  }

  function figure(made, title, caption) {
    const place = element("figure");
    const said = element("figcaption", caption);
    said.prepend(element("b", title));
    place.append(made.made, said);
    return place;
  }

  function row(picture) {
    const attacks = attacksOf(picture);
    const attack = state.step ? attacks[Math.min(state.step, attacks.length) - 1] ?? null : null;
    const at = attack ? 3 + 2 * picture.attacks.indexOf(attack) : -1;
    const grey = plane(picture, 0);
    const steps = attack ? plane(picture, at) : null;
    const [before, after] = [plane(picture, 2), attack ? plane(picture, at + 1) : plane(picture, 2)];
    const t = (i) => (steps ? (steps[i] - LEVELS) / LEVELS : 0);
    const attacked = (i) => Math.min(255, Math.max(0, grey[i] + t(i) * (attack ? attack.grey_values : 0)));
    const dice = [picture, attack ?? picture].map((of) => text("dice", of.dice));
    const name = attack ? attackTitle(attack) : "no attack";
    const image = canvas(picture, (i) => [grey[i], grey[i], grey[i]], `Image of ${picture.case}, with the ground truth`);
    const noise = canvas(picture, (i) => diverging(t(i)), attack ? `Perturbation by ${attack.attack}, ${name}` : "No perturbation");
    const first = canvas(picture, (i) => [grey[i], grey[i], grey[i]], `Prediction without an attack, Dice ${dice[0]}`);
    const second = canvas(picture, (i) => { const v = attacked(i); return [v, v, v]; }, `Prediction, ${name}, Dice ${dice[1]}`);
    overlay(image, picture, null);
    overlay(first, picture, before);
    overlay(second, picture, after);
    const size = attack ? `${attack.attack}, ${name}; full colour: ±${(255 * attack.full_colour).toPrecision(2)}/255 of the range` : "move the slider";
    const cells = [
      figure(image, "Image", thinned(picture)), figure(noise, "Perturbation", size),
      figure(first, "Prediction before", `Dice of the case ${dice[0]}`),
      figure(second, attack ? "Prediction after" : "Prediction", `${attack ? `${name}: ` : ""}Dice of the case ${dice[1]}`),
    ];
    const heading = several ? [element("h3", data.table.models[picture.model])] : [];
    return { cells: [...heading, ...cells], said: `${several ? `${data.table.models[picture.model]}: ` : ""}Dice ${dice[0]} clean, ${dice[1]} ${attack ? `under ${attack.attack} at ${name}` : "without an attack"}` };
  }

  const thinned = (picture) => (picture.stride > 1 ? `every ${picture.stride}th pixel` : "");

  function draw() {
    const rows = loaded.map(row);
    byId("pictures").replaceChildren(...rows.flatMap((r) => r.cells));
    byId("said").textContent = `${state.case}. ${rows.map((r) => r.said).join(". ")}.`;
    const attack = steps()[state.step - 1];
    byId("budget-text").textContent = state.step && attack ? attackTitle(attack) : "clean";
    byId("budget").setAttribute("aria-valuetext", byId("budget-text").textContent);
    const slices = loaded[0].slices;
    byId("slice-text").textContent = `${slices[state.slice]} (${state.slice + 1} of ${slices.length})`;
    byId("slice").setAttribute("aria-valuetext", byId("slice-text").textContent);
    key();
  }

  function key() {
    const entries = new Map();
    for (const picture of loaded) picture.names.forEach((name, i) => i && entries.set(name, COLOURS[(i - 1) % COLOURS.length]));
    const made = [...entries].map(([name, colour]) => {
      const entry = element("span");
      const patch = element("i");
      patch.style.background = colour;
      entry.append(patch, `predicted: ${name}`);
      return entry;
    });
    const truth = element("span");
    truth.append(element("i", null, { class: "line" }), "ground truth");
    byId("key").replaceChildren(...made, truth);
  }

  function setRange(input, most, value) {
    input.max = most;
    input.value = value;
    input.closest("label").hidden = most < 1;
  }

  function normChanged() {
    const most = steps().length;
    state.step = most; // the strongest one: what the page is about
    setRange(byId("budget"), most, most);
    draw();
  }

  async function show(name, focus) {
    if (!cases.includes(name)) return;
    const found = data.pictures.filter((p) => p.case === name);
    for (const picture of found) picture.planes ??= await planes(picture);
    loaded = found;
    state.case = name;
    byId("case").value = name;
    const norms = [...new Set(loaded.flatMap((p) => p.attacks.map((a) => (a.epsilon_text ? a.norm : ""))))];
    const select = byId("norm");
    select.replaceChildren();
    norms.forEach((n) => Report.option(select, n, NORMS[n] ?? n));
    byId("norm-label").hidden = norms.length < 2;
    state.norm = norms.includes(state.norm) ? state.norm : norms.includes("linf") ? "linf" : norms[0];
    select.value = state.norm;
    const slices = loaded[0].shape[0];
    state.slice = Math.floor(slices / 2);
    setRange(byId("slice"), slices - 1, state.slice);
    normChanged();
    Report.cases.mark();
    if (focus) {
      byId("viewer").scrollIntoView({ block: "start" });
      byId("pictures-title").focus({ preventScroll: true });
    }
  }

  function start() {
    if (!cases.length) return;
    if (typeof DecompressionStream === "undefined") {
      byId("said").textContent = "This browser is too old for the pictures (it has no DecompressionStream).";
      return;
    }
    cases.forEach((name) => Report.option(byId("case"), name, name));
    byId("case").addEventListener("change", (e) => show(e.target.value, false));
    byId("norm").addEventListener("change", (e) => { state.norm = e.target.value; normChanged(); });
    byId("budget").addEventListener("input", (e) => { state.step = Number(e.target.value); draw(); });
    byId("slice").addEventListener("input", (e) => { state.slice = Number(e.target.value); draw(); });
    for (const id of ["contours", "fill"]) byId(id).addEventListener("change", draw);
    byId("viewer-controls").hidden = false;
    show(cases[0], false);
  }

  return { start, show, current: () => state.case };
})();
