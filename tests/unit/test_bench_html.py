"""The page of a result: all of it, as text whatever it says, in one file that loads nothing."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.report import FORMAT

ROOT = Path(__file__).parents[2]
EVIL = "<script src=//evil.test/a.js>alert('&')</script>"
VOID = {"meta", "br"}
PERCENTS = ("p50", "p75", "p90", "p95", "p99", "p99.5", "p99.9", "p99.95", "p99.99")


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.drawn: dict[str, int] = {}
        self.at: dict[str, float] = {}
        """Where on its plot a dot stands, by what is told to who points at it."""
        self.texts: list[str] = []
        self._open: list[str] = []
        self._plot = ""
        self._dot_at = 0.0
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.elements.append((tag, named))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "svg":
            self._plot = named["aria-label"] or ""
        if tag == "circle":
            self._dot_at = float(named["cx"] or "")
        if tag == "circle" and named["class"] != "round":
            self.drawn[self._plot] = self.drawn.get(self._plot, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)
        if self._open[-2:] == ["circle", "title"]:
            self.at[data] = self._dot_at

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def measured(
    rate: float = 100.0, percents: tuple[str, ...] = PERCENTS, **figures: Any
) -> dict[str, Any]:
    latency_ms = {name: 1.5**at for at, name in enumerate(percents)}
    one = {
        "requests": 10,
        "requests_per_s": rate,
        "client_cpu_share": 0.1,
        "server_cpu_us": 5.0,
        "lane_share": None,
        "latency_ms": latency_ms,
    }
    return {
        "says": EVIL,
        "engine": EVIL,
        "requests_per_s": rate,
        "server_cpu_us": 5.0,
        "lane_share": None,
        "latency_ms": latency_ms,
        "ratios": {},
        "cpu_ratios": {},
        "added_p50_ms": None,
        "ceiling_requests_per_s": None,
        "rounds": [one, {**one, "requests_per_s": rate / 2}],
        **figures,
    }


def result(day: int, **scenarios: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "started_at": f"2026-01-{day:02}T00:00:00+00:00",
        "commit": f"abc{day:02}",
        "machine": {"cpu": f"cpu {EVIL}", "cores": 2},
        "versions": {"python": "3.11.7"},
        "settings": {"model": EVIL, "scenario": [EVIL, "zipf"], "target": "http://host.test/"},
        "servers": {},
        "scenarios": scenarios,
        "missing": {EVIL: EVIL},
        "warnings": [EVIL],
    }


def report(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "report", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def page(file: Path, found: dict[str, Any]) -> Page:
    file.write_bytes(msgspec.json.encode(found))
    done = report(file)
    assert done.returncode == 0, done.stderr
    return Page(file.with_suffix(".html").read_text(encoding="utf-8"))


def test_what_was_measured_is_text_and_nothing_is_loaded_or_run(tmp_path: Path) -> None:
    shown = page(tmp_path / "a.json", result(1, **{EVIL: measured(), "zipf": measured()}))
    assert {tag for tag, _ in shown.elements}.isdisjoint({"script", "link", "img", "iframe"})
    for _, named in shown.elements:
        assert not {"src", "href", "xlink:href", "srcset", "style"} & set(named)
        assert not [name for name in named if name.startswith("on")]
    style = (tmp_path / "a.html").read_text().partition("<style>")[2].partition("</style>")[0]
    assert "prefers-color-scheme: dark" in style
    assert "url(" not in style
    assert "@import" not in style
    assert shown.texts.count(EVIL) >= 6  # the scenario, who asked, the model, what is missing
    assert f"Beware: {EVIL}" in shown.texts
    for text in ("zipf", "abc01", "2026-01-01", f"cpu {EVIL}", "3.11.7", "http://host.test/"):
        assert text in shown.text


@pytest.mark.parametrize("percents", [("p50", "p90", "p99", "p99.9"), PERCENTS])
def test_a_plot_has_a_point_for_each_percentile(tmp_path: Path, percents: tuple[str, ...]) -> None:
    shown = page(tmp_path / "a.json", result(1, zipf=measured(percents=percents)))
    assert shown.drawn["zipf: percentiles of its latency"] == len(percents)
    for at, name in enumerate(percents):
        assert f"{name}: {1.5**at:.3g} ms" in shown.texts


def test_throughput_has_all_but_who_asks_once(tmp_path: Path) -> None:
    scenarios = {"bare": measured(41234.0), "herd": measured(requests_per_s=None)}
    shown = page(tmp_path / "a.json", result(1, **scenarios))
    assert shown.drawn["requests per second of each scenario"] == 1
    assert "bare: 41,234" in shown.texts
    assert "bare: 20,617 requests/s in one round" in shown.texts


def test_figures_stand_against_their_bars(tmp_path: Path) -> None:
    scenarios = {
        "repeat": measured(ratios={"bare": 3.94, "nginx": 0.1}),
        "miss-latency": measured(added_p50_ms=-0.1),
        "zipf": measured(lane_share=0.0),
    }
    shown = page(tmp_path / "a.json", result(1, **scenarios))
    worst_first = [
        "zipf, lane share >= 0.9: 0, MISSED",
        "repeat / nginx, throughput >= 0.6: 0.1, MISSED",
        "repeat / bare, throughput >= 3: 3.94, met",
        "miss-latency, added p50 ms <= 0.6: -0.1, met",
    ]
    assert set(worst_first) <= set(shown.texts)
    assert sorted(worst_first, key=lambda one: shown.at[one]) == worst_first
    assert shown.drawn["figures against their bars"] == 4
    assert "Not measured: " in shown.text


def test_earlier_results_beside_it_are_drawn_and_what_cannot_be_read_is_named(
    tmp_path: Path,
) -> None:
    for day, more in ((1, {}), (2, {"nginx": 0.5}), (9, {"nginx": 0.7})):
        ratios = {"bare": float(day + 1), **more}
        earlier = result(day, repeat=measured(ratios=ratios), zipf=measured())
        (tmp_path / f"{day}.json").write_bytes(msgspec.json.encode(earlier))
    (tmp_path / "older.json").write_bytes(msgspec.json.encode({**result(1), "format": FORMAT - 1}))
    (tmp_path / "other.json").write_text("{")
    last = {"repeat": measured(ratios={"bare": 4.0, "nginx": 0.6}), "zipf": measured(lane_share=1)}
    shown = page(tmp_path / "3.json", result(3, **last))
    assert shown.drawn["repeat / bare, throughput >= 3, over time"] == 3  # two before, and itself
    assert shown.drawn["repeat / nginx, throughput >= 0.6, over time"] == 2
    assert "zipf, lane share >= 0.9, over time" not in shown.drawn
    told = [f"2026-01-0{day}T00:00:00+00:00, abc0{day}: {day + 1}" for day in (1, 2, 3)]
    assert [text for text in shown.texts if text in told] == told
    assert "older.json, other.json" in shown.text


def test_a_first_result_says_that_there_is_nothing_before_it(tmp_path: Path) -> None:
    shown = page(tmp_path / "a.json", result(1, repeat=measured(ratios={"bare": 4.0})))
    assert "There are no earlier results of this format." in shown.texts


def test_a_result_that_cannot_be_read_is_a_failure_and_the_others_have_their_pages(
    tmp_path: Path,
) -> None:
    older, good = tmp_path / "a.json", tmp_path / "b.json"
    older.write_bytes(msgspec.json.encode({**result(1), "format": FORMAT - 1}))
    good.write_bytes(msgspec.json.encode(result(2, repeat=measured())))
    done = report(older, tmp_path / "none.json", good)
    assert done.returncode == 1
    failures = done.stderr.splitlines()
    assert [line.startswith("FAILED: ") for line in failures] == [True, True]
    assert "a.json" in failures[0]
    assert "none.json" in failures[1]
    assert sorted(file.name for file in tmp_path.glob("*.html")) == ["b.html"]
