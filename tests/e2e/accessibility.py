"""What a page must be so that everybody can use it, as far as a script can tell.

WCAG 2.2, https://www.w3.org/TR/WCAG22/ (2026-11): 1.3.1, 1.4.3, 1.4.10, 2.1.1, 2.4.1, 2.4.7, 2.5.8,
4.1.2. Each script returns a list of what is wrong; an empty one is right.
"""

NAMES_AND_LANDMARKS = """
const faults = [];
const shown = (one) => one.getClientRects().length > 0;
const all = (css) => [...document.querySelectorAll(css)].filter(shown);
const nameOf = (one) =>
  one.getAttribute("aria-label") ||
  (one.getAttribute("aria-labelledby") || "").split(" ")
    .map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim() ||
  [...(one.labels ?? [])].map((label) => label.textContent).join(" ").trim() ||
  one.textContent.trim();
for (const one of all("a, button, input, textarea, select, summary, section, [role=region]"))
  if (!nameOf(one)) faults.push(`no name: ${one.outerHTML.slice(0, 80)}`);
for (const one of all("input, textarea, select"))
  if (!(one.labels ?? []).length) faults.push(`no label: ${one.id}`);
for (const one of all("nav"))
  if (!one.getAttribute("aria-label")) faults.push("a nav without a name");
for (const [css, wanted] of [["main", 1], ["h1", 1], ["header", 1], ["footer", 1]])
  if (all(css).length !== wanted) faults.push(`${all(css).length} of ${css}`);
let level = 1;
for (const one of all("h1, h2, h3, h4")) {
  const own = Number(one.tagName[1]);
  if (own > level + 1) faults.push(`heading ${own} after ${level}: ${one.textContent}`);
  level = own;
}
for (const one of all("svg"))
  if (one.getAttribute("aria-hidden") !== "true") faults.push("a drawing");
for (const one of all("img")) if (!one.alt) faults.push("an image without a text");
for (const one of all("table")) {
  if (!nameOf(one)) faults.push("a table without a name");
  for (const head of one.querySelectorAll("th"))
    if (!head.getAttribute("scope")) faults.push(`a head of nothing: ${head.textContent}`);
}
const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`twice: #${id}`);
for (const one of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
  for (const name of ["aria-labelledby", "aria-describedby"])
    for (const id of (one.getAttribute(name) ?? "").split(" ").filter(Boolean))
      if (!document.getElementById(id)) faults.push(`points at nothing: ${id}`);
if (document.querySelector("[tabindex]:not([tabindex='0']):not([tabindex='-1'])"))
  faults.push("an order of its own");
for (const one of document.querySelectorAll("[aria-live]"))
  if (one.textContent.length > 120) faults.push(`too long to be read out: ${one.id}`);
for (const one of all("button, input, textarea, summary, nav a")) {
  const { width, height } = one.getBoundingClientRect();
  if (Math.min(width, height) < 24) faults.push(`too small: ${nameOf(one)} ${width} x ${height}`);
}
if (!document.documentElement.lang || !document.title) faults.push("no language, or no title");
return faults;
"""

CONTRAST = """
const parse = (text) => {
  const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
  return { rgb: [r, g, b], a };
};
const luminance = ([r, g, b]) => {
  const part = (value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const behind = (one) => {
  for (let node = one; node; node = node.parentElement) {
    const { rgb, a } = parse(getComputedStyle(node).backgroundColor);
    if (a === 1) return rgb;
  }
  return [255, 255, 255];
};
const faults = [];
let seen = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text = walker.nextNode(); text; text = walker.nextNode()) {
  const one = text.parentElement;
  if (!text.data.trim() || !one.getClientRects().length) continue;
  const style = getComputedStyle(one);
  if (one.closest("button:disabled")) continue;
  const [a, b] = [luminance(parse(style.color).rgb), luminance(behind(one))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  seen += 1;
  if (ratio < (large ? 3 : 4.5))
    faults.push(`${ratio.toFixed(2)}: ${text.data.trim().slice(0, 40)} (${style.color})`);
}
if (seen < 5) faults.push(`only ${seen} texts`);
return faults;
"""

TOO_WIDE = """
const page = document.documentElement;
if (page.scrollWidth <= innerWidth) return [];
return [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => `${one.tagName}.${one.className}: ${one.textContent.slice(0, 40)}`);
"""
