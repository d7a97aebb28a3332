// What every part of a page uses: the data, and numbers as report.md has them.
"use strict";
const Report = { data: JSON.parse(document.getElementById("data").textContent) };

// as Python has it, so that the page says what report.md says: a half goes to the even digit
Report.rounded = (value, digits) => {
  const exact = value.toFixed(60); // all digits that a number of this size has
  const end = exact.indexOf(".") + 1 + digits;
  const even = /[02468]\.?$/.test(exact.slice(0, end));
  return even && /^50*$/.test(exact.slice(end)) ? exact.slice(0, end) : value.toFixed(digits);
};

// as report.md: percent with one decimal, counts whole, all else with three digits
Report.text = (metric, value) => {
  if (value === null || value === undefined) return "undefined";
  if (Report.METRICS[metric].whole) return String(value);
  if (Report.METRICS[metric].percent) return Report.rounded(100 * value, 1);
  const digits = value ? 2 - Math.floor(Math.log10(Math.abs(value))) : 0;
  return String(Number(digits >= 0 ? Report.rounded(value, digits) : value.toPrecision(3)));
};

Report.words = (name) => name.replaceAll("_", " ");

Report.element = (tag, text, attributes = {}) => {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

Report.choice = (type, name, value, title, checked, changed) => {
  const label = Report.element("label");
  const input = Report.element("input", null, { type, name, value });
  input.checked = checked;
  input.addEventListener("change", () => changed(input));
  label.append(input, title);
  return label;
};

Report.option = (select, value, title) => select.append(Report.element("option", title, { value }));
