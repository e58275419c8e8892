// Small lines of the last two minutes, and the bar of sources.

const POINTS = 120;
const HEIGHT = 56;

function path(values, highest) {
  const step = 120 / (POINTS - 1);
  const from = POINTS - values.length;
  return values
    .map((value, at) => {
      const y = HEIGHT - 2 - ((HEIGHT - 6) * value) / highest;
      return `${at ? "L" : "M"}${((from + at) * step).toFixed(2)} ${y.toFixed(2)}`;
    })
    .join("");
}

// Draw one series as an area, and a second one as a line over it.
function chart(id, values, second = []) {
  const svg = byId(id);
  const highest = Math.max(1, ...values, ...second);
  if (!svg.firstChild) {
    const y = HEIGHT - 1;
    svg.append(
      drawn("line", { class: "base", x1: 0, x2: 120, y1: y, y2: y }),
      drawn("path", { class: "area" }),
      drawn("path", { class: "stroke" }),
      drawn("path", { class: "stroke second" }),
    );
  }
  const [, area, stroke, other] = svg.children;
  const line = values.length > 1 ? path(values, highest) : "";
  const first = ((POINTS - values.length) * 120) / (POINTS - 1);
  stroke.setAttribute("d", line);
  area.setAttribute("d", line && `${line}L120 ${HEIGHT - 1}L${first.toFixed(2)} ${HEIGHT - 1}Z`);
  other.setAttribute("d", second.length > 1 ? path(second, highest) : "");
}

const SOURCES = {
  cache: "remembered",
  live: "asked",
  coalesced: "shared a call",
  stale: "last known",
  estimate: "estimated",
  error: "refused",
};

function split(parts) {
  const shown = Object.keys(SOURCES).filter((name) => parts[name] > 0);
  const all = shown.reduce((sum, name) => sum + parts[name], 0);
  byId("split").replaceChildren(
    ...shown.map((name) => {
      const part = make("span", { class: `of-${name}` });
      part.style.flexGrow = parts[name] / all;
      part.style.minWidth = "2px";
      return part;
    }),
  );
  byId("legend").replaceChildren(
    ...shown.map((name) =>
      make(
        "li",
        {},
        make("i", { class: `of-${name}`, "aria-hidden": "true" }),
        `${number(parts[name])} ${SOURCES[name]}`,
      ),
    ),
  );
}
