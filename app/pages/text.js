// Elements and numbers. All text is set as text: nothing that comes from the server is ever markup.

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function put(target, text) {
  const node = typeof target === "string" ? byId(target) : target;
  if (node.textContent !== text) node.textContent = text;
}

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function drawn(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// How wide a bar is: by the style object, which the policy allows, not by an attribute.
function bar(share, classes = "fill") {
  const node = make("div", { class: classes });
  node.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return node;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

const number = (value) => whole.format(value);
const rate = (value) => (value > 0 && value < 10 ? tenths : whole).format(value);

function percent(part, of) {
  if (!of) return "–";
  const share = (100 * part) / of;
  // What is not all is never shown as all.
  return share < 100 && share >= 99.95 ? "99.9 %" : `${tenths.format(share)} %`;
}

function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 10) return `${value.toFixed(2)} ms`;
  if (value < 1000) return `${whole.format(value)} ms`;
  return `${tenths.format(value / 1000)} s`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}
