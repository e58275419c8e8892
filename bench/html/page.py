"""The page of a result: one file that loads nothing and runs nothing.

It is built as a tree, so what was measured or named by others is text wherever it stands.
"""

from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, tostring

from bench import table
from bench.gates import Bars, judge
from bench.html import plots
from bench.report import Result
from bench.svg import add

STYLE = """
:root { --text: #1c2024; --dim: #667078; --back: #fff; --grid: #dfe3e6; --mark: #0b62a8;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7ea; --dim: #98a2aa; --back: #15181b; --grid: #343b41; --mark: #6db8f2;
    --bad: #ff8a80; }
}
body { margin: 0 auto; padding: 1rem; max-width: 75rem; color: var(--text);
  background: var(--back); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
figure { margin: 0; max-width: 36rem; }
figcaption { font-weight: 600; }
.many { display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--grid); text-align: right;
  white-space: pre; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; font-size: .85rem; }
.warning { color: var(--bad); } .dim { color: var(--dim); }
svg { display: block; width: 100%; height: auto; font-size: 11px; }
svg text { fill: var(--text); paint-order: stroke; stroke: var(--back); stroke-width: 3px; }
svg .tick { fill: var(--dim); font-size: 10px; }
.grid { stroke: var(--grid); } .line { stroke: var(--mark); stroke-width: 1.5; }
.bar { stroke: var(--text); stroke-dasharray: 4 3; }
.point { fill: var(--mark); } .round { fill: var(--back); stroke: var(--mark); }
.spread { fill: var(--mark); opacity: .2; }
line.missed { stroke: var(--bad); stroke-width: 1.5; } circle.missed { fill: var(--bad); }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
PERCENTILES = (
    "How slow the slowest are: milliseconds by percentile, both logarithmic, the same axes for all."
    " The line is the median of the rounds, the band goes from the best round to the worst. Where"
    " fewer were answered than a percentile needs, it is the slowest of all."
)


def page(
    result: Result, bars: Bars | None, earlier: Sequence[Result], left_out: Iterable[str]
) -> str:
    """Write the page. ``earlier`` is the oldest first, ``left_out`` are files that cannot be used.

    Without ``bars`` nothing is held against them.
    """
    html = Element("html", {"lang": "en"})
    title = f"tallygate bench, commit {result.commit}"
    _head(html, title)
    body = add(html, "body")
    add(body, "h1", title)
    add(body, "p", f"Measured at {result.started_at}.", kind="dim")
    _table(body, result)
    _plots(body, result)
    if bars is not None:
        _bars(body, result, bars, earlier)
    names = list(left_out)
    if names:
        text = f"Left out, as they are no results of this format: {', '.join(names)}."
        add(body, "p", text, kind="dim")
    add(body, "h2", "What it was measured with")
    facts = (("machine", result.machine), ("version", result.versions))
    for what, found in (*facts, ("setting", result.settings)):
        _pairs(body, what, {**found, "commit": result.commit} if what == "version" else found)
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _head(html: Element, title: str) -> None:
    head = add(html, "head")
    add(head, "meta", charset="utf-8")
    add(head, "meta", http_equiv="Content-Security-Policy", content=POLICY)
    add(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    add(head, "meta", name="color-scheme", content="light dark")
    add(head, "title", title)
    add(head, "style", STYLE)


def _table(body: Element, result: Result) -> None:
    rows = add(add(body, "div", kind="wide"), "table")
    headings = add(rows, "tr")
    for heading in ("scenario", *table.FIGURES):
        add(headings, "th", heading)
    for name, summary in result.scenarios.items():
        row = add(rows, "tr", title=summary.says)
        for cell in (name, *table.cells(summary)):
            add(row, "td", cell)
    for name, why in result.missing.items():
        row = add(rows, "tr")
        add(row, "td", name)
        add(row, "td", f"not measured: {why}", colspan=len(table.FIGURES), kind="text")
    _list(body, table.footnotes(result), "dim")
    _list(body, [f"Beware: {warning}" for warning in result.warnings], "warning")


def _list(body: Element, lines: Iterable[str], kind: str) -> None:
    found = add(body, "ul", kind=kind)
    for line in lines:
        add(found, "li", line)


def _plots(body: Element, result: Result) -> None:
    add(body, "h2", "Latency")
    add(body, "p", PERCENTILES)
    many = add(body, "div", kind="many")
    ends_ms = plots.latency_ends_ms(result)
    for name, summary in result.scenarios.items():
        _figure(many, name, plots.latencies(name, summary, ends_ms))
    add(body, "h2", "Throughput")
    add(body, "p", "Requests per second, logarithmic: the median, and each round.")
    _figure(body, "", plots.throughput(result))


def _bars(body: Element, result: Result, bars: Bars, earlier: Sequence[Result]) -> None:
    verdicts = judge(result, bars)
    add(body, "h2", "Against the bars")
    text = "Each figure divided so that 1 is its bar and more is better; logarithmic."
    add(body, "p", f"{text} It may miss its bar by {bars.noise:.0%}, a share by nothing.")
    _figure(body, "", plots.against_bars(verdicts))
    unmeasured = [str(one.bar) for one in verdicts if one.found is None]
    if unmeasured:
        add(body, "p", f"Not measured: {'; '.join(unmeasured)}.")
    add(body, "h2", "Over time")
    drawn = [(one, plots.over_time(one, (*earlier, result))) for one in bars.bars]
    if all(plot is None for _, plot in drawn):
        add(body, "p", "There are no earlier results of this format.")
        return
    add(body, "p", "This run and those before it that lie beside it; the dashed line is the bar.")
    many = add(body, "div", kind="many")
    for bar, plot in drawn:
        if plot is not None:
            _figure(many, str(bar), plot)


def _figure(parent: Element, caption: str, plot: Element) -> None:
    figure = add(parent, "figure")
    if caption:
        add(figure, "figcaption", caption)
    figure.append(plot)


def _pairs(body: Element, what: str, found: Mapping[str, object]) -> None:
    rows = add(body, "table")
    headings = add(rows, "tr")
    add(headings, "th", what)
    add(headings, "th", "")
    for name, value in found.items():
        row = add(rows, "tr")
        add(row, "td", name)
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        add(row, "td", shown, kind="text")
