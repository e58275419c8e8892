"""The pages in a real browser: what is shown, who may see it, and that it is inert."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.status_stream import MAX_STREAMS
from bench.provider import SimulatedProvider
from tests.browser import ENTER, TAB, Browser
from tests.e2e.accessibility import CONTRAST, NAMES_AND_LANDMARKS, TOO_WIDE
from tests.e2e.exchange import BEARER, COUNT, anthropic, counted, model_list, question
from tests.server import KEY, Tallygate

pytestmark = pytest.mark.timeout(180)

Start = Callable[..., Tallygate]
TEAM = "sk-team-a-and-nobody-else"
EVIL = "<img src=x onerror=\"document.title='taken'\"></script><script>alert(1)</script>"
WIDTHS = (360, 768, 1280)


def config(provider: SimulatedProvider) -> dict[str, Any]:
    names = {
        "claude-good": anthropic("claude-good", provider.url, rpm=6000),
        "claude-broken": anthropic("claude-broken", provider.url),
        "claude-picky": anthropic("claude-picky", provider.url),
        "a-name-that-never-ends-" + "x" * 160: {"model": "estimate/claude"},
        EVIL: {"model": "estimate/claude"},
        "own": {"model": "estimate/claude"},
        "wild/*": anthropic("*", provider.url),
    }
    return {
        "model_list": model_list(**names),
        "keys": [{"name": "team-a", "key": TEAM, "models": ["own"]}],
        "limits": {"breaker_probe_s": 600},
    }


@pytest.fixture(scope="module")
def server(provider: SimulatedProvider, start: Start) -> Tallygate:
    return start(config(provider), workers=2)


@pytest.fixture(scope="module")
def one_browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture
def browser(one_browser: Browser, server: Tallygate) -> Iterator[Browser]:
    """Look at the page as somebody who was never here; nothing may break its policy meanwhile."""
    one_browser.prefer()
    one_browser.resize(1280, 900)
    one_browser.open(server.url)
    one_browser.run("sessionStorage.clear(); localStorage.clear();")
    one_browser.open(server.url)
    one_browser.log()
    yield one_browser
    said = one_browser.log()
    assert not [one for one in said if "Failed to load resource" not in one], said


def sign_in(browser: Browser, key: str = KEY) -> None:
    browser.until(lambda: browser.sees("#sign-in"))
    browser.write("#key", key)
    browser.press(ENTER)


def see_figures(browser: Browser, key: str = KEY) -> None:
    sign_in(browser, key)
    browser.until(lambda: browser.sees("#figures"))
    browser.until(lambda: browser.text("#state") == "Live")


class Load:
    """Clients that count without a pause, while it is entered."""

    def __init__(self, server: Tallygate) -> None:
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(3)]

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._server.url, headers=BEARER, timeout=30) as client:
            for turn in range(1_000_000):
                if self._stop.wait(0.002):
                    return
                name = ("own", "claude-good", "claude-good")[number]
                text = f"prompt {turn % 7 if turn % 9 else turn}"
                messages = [{"role": "user", "content": text}]
                client.post(COUNT, json={"model": name, "messages": messages})

    def __enter__(self) -> None:
        for one in self._threads:
            one.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()


def told(server: Tallygate) -> dict[str, int]:
    """Read from /metrics what the page shows, by the element that shows it."""
    metrics = server.metrics()

    def total(name: str, *labels: str) -> int:
        return int(
            sum(
                value
                for key, value in metrics.items()
                if key.startswith(f"tallygate_{name}") and all(one in key for one in labels)
            )
        )

    saved = [total("counts_total{", f'source="{one}"') for one in ("cache", "coalesced")]
    return {
        "#requests": total("requests_total{"),
        "#saved": sum(saved),
        "#calls": total("upstream_calls_total{"),
    }


def drawn(browser: Browser) -> int:
    """Count the points of the throughput's line."""
    line: str = browser.run(
        "return document.querySelector('#rate-chart .stroke')?.getAttribute('d') ?? ''"
    )
    return line.count("L")


def test_during_a_load_run_it_shows_what_metrics_tell(browser: Browser, server: Tallygate) -> None:
    see_figures(browser)
    with Load(server):
        browser.until(lambda: browser.number("#rate") > 50)
        before = told(server)
        for css, least in before.items():
            browser.until(lambda css=css, least=least: browser.number(css) >= least)  # type: ignore[misc]
            assert browser.number(css) <= told(server)[css]
        assert browser.text("#hit-50").endswith(" ms")
        browser.until(lambda: drawn(browser) > 3)
    after = told(server)
    for css, value in after.items():
        browser.until(lambda css=css, value=value: browser.number(css) == value, css)  # type: ignore[misc]
    status = httpx.get(f"{server.url}/status", headers=BEARER).json()
    counts = status["totals"]["counts"]
    hits = f"{100 * counts['cache'] / sum(counts.values()):.1f} %"
    assert browser.text("#ratio") == hits
    good = next(one for one in status["models"] if one["name"] == "claude-good")
    assert f"{good['requests']:,}" in browser.text("#models")
    browser.until(lambda: browser.text("#rate") == "0")


def test_a_deployment_that_fails_is_shown(
    browser: Browser, server: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(status=500, model="claude-broken")
    for _ in range(12):
        server.count(question("claude-broken"))
    see_figures(browser)
    browser.until(lambda: "left alone" in browser.text("#deployments"))
    shown = browser.text("#deployments")
    assert "500 api_error" in shown
    assert "6,000 a minute" in shown
    assert "300 of 300 free now" in shown
    errors = browser.text("#errors")
    assert "claude-broken[1]" in errors
    assert "master" in errors


def test_the_box_counts_with_every_model(
    browser: Browser, server: Tallygate, provider: SimulatedProvider
) -> None:
    error = {"type": "invalid_request_error", "message": "not <b>so</b>"}
    provider.behave(status=400, model="claude-picky", body={"type": "error", "error": error})
    see_figures(browser)
    browser.click("#count")
    assert browser.text("#try-state") == "Paste something first."
    body = question("own")
    tokens = counted(server.count(body))
    browser.write("#prompt", body["messages"][0]["content"])
    browser.click("#count")
    browser.until(lambda: " counted it." in browser.text("#try-state"))
    rows: list[list[str]] = browser.run(
        "return [...document.querySelectorAll('#tried tbody tr')]"
        ".map((row) => [...row.children].map((one) => one.textContent))"
    )
    by_name = {row[0]: row[1:] for row in rows}
    assert len(rows) == 6
    (own,) = (row for name, row in by_name.items() if name.startswith("own"))
    assert own[:2] == [str(tokens), "estimate"]
    assert own[2].endswith(" ms")
    good = by_name["claude-good"]
    assert good[1] == "live"
    assert by_name["claude-picky"][1:4:2] == ["refused", "not <b>so</b>"]
    refusals = sum(row[1] == "refused" for row in by_name.values())
    assert browser.text("#try-state") == f"{6 - refusals} of 6 counted it."
    assert browser.text("#try-hint") == "1 wildcard name is left out."
    browser.click("#count")
    browser.until(lambda: "cache" in browser.text("#tried"), "what is remembered is asked again")


def test_the_box_takes_a_whole_body(browser: Browser, server: Tallygate) -> None:
    see_figures(browser)
    body = {**question("wild/claude-z"), "system": "A rule. " * 20}
    tokens = counted(server.count({**body, "model": "own"}))
    browser.write("#prompt", str(httpx.Request("POST", "http://x", json=body).content, "utf-8"))
    browser.run("document.getElementById('prompt').focus()")
    browser.click("#count")
    browser.until(lambda: " counted it." in browser.text("#try-state"))
    shown = browser.text("#tried")
    assert "wild/claude-z" in shown
    assert str(tokens) in shown


def test_a_wrong_key_is_told_and_forgotten(browser: Browser) -> None:
    sign_in(browser, "sk-wrong")
    browser.until(lambda: browser.sees("#key-fault"))
    assert browser.text("#key-fault") == "This server does not know that key."
    assert not browser.sees("#figures")
    assert browser.run("return sessionStorage.length + localStorage.length") == 0
    assert browser.focused() == "key"
    sign_in(browser, "käy")
    assert "ASCII" in browser.text("#key-fault")
    see_figures(browser)


def test_the_key_is_kept_for_the_tab_and_is_in_no_address(
    browser: Browser, server: Tallygate
) -> None:
    browser.addresses()
    see_figures(browser)
    browser.write("#prompt", "Hello")
    browser.click("#count")
    browser.until(lambda: " counted it." in browser.text("#try-state"))
    browser.open(server.url + "/ui")
    browser.until(lambda: browser.sees("#figures"))
    seen = browser.addresses()
    for path in ("/status/stream", COUNT, "/v1/models", "/ui"):
        assert server.url + path in seen
    assert not [one for one in seen if KEY in one or "key=" in one]
    assert browser.run("return document.cookie") == ""
    assert browser.run("return localStorage.length") == 0
    assert KEY not in server.out.read_text() + server.err.read_text()


def test_signing_out_forgets_everything(browser: Browser, server: Tallygate) -> None:
    counted(server.count(question("claude-good")))
    see_figures(browser)
    browser.until(lambda: "claude-good" in browser.text("#deployments"))
    browser.click("#sign-out")
    assert browser.sees("#sign-in")
    assert not browser.sees("#figures")
    assert browser.run("return sessionStorage.length") == 0
    left: str = browser.run(
        "for (const one of document.querySelectorAll('script')) one.remove();"
        "return document.documentElement.outerHTML + document.getElementById('key').value"
    )
    assert "claude-good" not in left
    assert KEY not in left
    browser.open(server.url)
    browser.until(lambda: browser.sees("#sign-in"))


def test_an_answer_that_comes_after_signing_out_is_not_shown(
    browser: Browser, server: Tallygate
) -> None:
    counted(server.count(question("claude-good"), x_tallygate_end_user="late-comer"))
    browser.run(
        "const real = fetch;"
        "window.fetch = async (path, options) => {"
        "  const answer = await real(path, options);"
        "  if (path.startsWith('/usage')) await new Promise((go) => { window.letGo = go; });"
        "  return answer;"
        "};"
    )
    see_figures(browser)
    browser.until(lambda: browser.run("return 'letGo' in window"))
    browser.click("#sign-out")
    browser.run("letGo()")
    time.sleep(0.5)
    assert browser.run("return document.getElementById('users').innerHTML") == ""


def test_another_key_sees_what_it_may(browser: Browser, server: Tallygate) -> None:
    counted(server.count(question("claude-good")))
    see_figures(browser, TEAM)
    assert browser.text("#deployments").count("estimate · claude") == 1
    assert "claude-good" not in browser.text("#figures")


def test_a11_what_others_write_is_shown_as_text(browser: Browser, server: Tallygate) -> None:
    """A model's and an end user's name that are markup: read, not run."""
    counted(server.count(question(EVIL), **{"x-tallygate-end-user": EVIL}))
    see_figures(browser)
    browser.write("#prompt", EVIL)
    browser.click("#count")
    browser.until(lambda: " counted it." in browser.text("#try-state"))
    for css in ("#deployments", "#models", "#tried"):
        assert EVIL in browser.text(css)
    row = dict.fromkeys(("requests", "input_tokens", "upstream_calls_saved", "errors"), 1)
    browser.run(
        "const kept = window.fetch; const rows = arguments[0];"
        "window.fetch = (path, given) => path.startsWith('/usage')"
        " ? Promise.resolve(new Response(JSON.stringify({data: rows}))) : kept(path, given);",
        [{"end_user": EVIL, **row}],
    )
    browser.until(lambda: EVIL in browser.text("#users"))
    assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
    assert browser.run("return document.title") == "Tallygate"


def test_its_policy_holds(one_browser: Browser, server: Tallygate) -> None:
    """What would be run or fetched by an injection is not."""
    one_browser.open(server.url)
    one_browser.log()
    one_browser.run(
        "window.refusals = [];"
        "document.addEventListener('securitypolicyviolation',"
        " (one) => refusals.push(one.effectiveDirective));"
        "const ill = document.createElement('div');"
        "document.body.append(ill);"
        "try { ill.innerHTML = '<b>x</b>'; } catch { refusals.push('innerHTML'); }"
        "const image = document.createElement('img');"
        "image.src = 'http://127.0.0.1:9/x.png'; ill.append(image);"
        "fetch('http://127.0.0.1:9/').catch(() => {});"
        "ill.setAttribute('style', 'color: red');"
    )
    wanted = {"innerHTML", "img-src", "connect-src", "style-src-attr"}
    one_browser.until(lambda: wanted <= set(one_browser.run("return refusals")))


def test_a_server_that_is_gone_and_comes_back(browser: Browser, server: Tallygate) -> None:
    see_figures(browser)
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        browser.until(lambda: browser.sees("#gone"))
        assert browser.text("#state") == "Connection lost, trying again…"
        assert browser.sees("#figures")
    finally:
        os.killpg(server.pid, signal.SIGCONT)
    browser.until(lambda: browser.text("#state") == "Live")
    assert not browser.sees("#gone")


def test_without_keys_it_needs_none(one_browser: Browser, start: Start) -> None:
    open_to_this_machine = start(
        {
            "model_list": model_list(own={"model": "estimate/claude"}),
            "general_settings": {"master_key": None},
        }
    )
    one_browser.open(open_to_this_machine.url)
    one_browser.until(lambda: one_browser.sees("#figures"))
    assert not one_browser.sees("#sign-out")
    assert one_browser.sees("#models-empty")
    assert one_browser.sees("#errors-empty")
    one_browser.write("#prompt", "Hello")
    one_browser.click("#count")
    one_browser.until(lambda: one_browser.text("#try-state") == "1 of 1 counted it.")


def test_it_is_used_by_keyboard_alone(browser: Browser, server: Tallygate) -> None:
    """From signing in to counting, and each stop shows where it is."""
    browser.until(lambda: browser.sees("#sign-in"))
    assert browser.focused() == "key"
    browser.press(*KEY, ENTER)
    browser.until(lambda: browser.sees("#figures"))
    browser.open(server.url)
    browser.until(lambda: browser.sees("#figures"))
    stops = []
    for _ in range(20):
        browser.press(TAB)
        stops.append(browser.focused())
        assert browser.run(
            "const one = getComputedStyle(document.activeElement);"
            "return one.outlineStyle !== 'none' && parseFloat(one.outlineWidth) >= 2"
        ), stops
        if stops[-1] == "count":
            break
    assert stops[:5] == ["Skip to the figures", "Status", "API", "theme", "sign-out"]
    assert stops[-2:] == ["prompt", "count"]
    browser.run("document.getElementById('prompt').focus()")
    browser.press("H", "i")
    browser.press(TAB, ENTER)
    browser.until(lambda: " counted it." in browser.text("#try-state"))
    browser.run("document.querySelector('.skip').focus()")
    assert browser.sees(".skip")
    browser.press(ENTER)
    assert browser.focused() == "main"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_and_can_be_read(browser: Browser, server: Tallygate, scheme: str) -> None:
    """At three widths: nothing to the side, names, landmarks, contrast."""
    server.count(question("unheard-of"))
    browser.prefer(color_scheme=scheme)
    browser.until(lambda: browser.sees("#sign-in"))
    checks = (NAMES_AND_LANDMARKS, CONTRAST, TOO_WIDE)

    def look(what: str) -> None:
        for width in WIDTHS:
            browser.resize(width, 900)
            faults = [fault for check in checks for fault in browser.run(check)]
            assert not faults, (what, width, faults)

    look("signed out")
    see_figures(browser)
    browser.write("#prompt", "Hello")
    browser.click("#count")
    browser.until(lambda: " counted it." in browser.text("#try-state"))
    look("figures")
    browser.open(f"{server.url}/docs")
    browser.until(lambda: browser.sees(".operation"))
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true;")
    look("docs")


def test_on_a_phone_a_table_is_still_one(browser: Browser) -> None:
    """Rows become sheets to look at; to a screen reader they stay rows of a table."""
    see_figures(browser)
    browser.resize(360, 800)
    for role in ("table", "columnheader", "row", "rowheader", "cell"):
        assert browser.has_role("#deployments", role), role
    # Other browsers take the roles from what is laid out in another way, unless they are said.
    unsaid = "#deployments :is(thead, tbody, tr, th, td):not([role])"
    assert browser.run(f"return document.querySelectorAll('{unsaid}').length") == 0
    assert (
        browser.run(
            "const one = document.querySelector('#deployments tbody tr');"
            "return getComputedStyle(one).display"
        )
        == "block"
    )


def test_the_theme_follows_the_system_until_it_is_switched(
    browser: Browser, server: Tallygate
) -> None:
    def background() -> str:
        found: str = browser.run(
            "return getComputedStyle(document.documentElement).backgroundColor"
        )
        return found

    browser.prefer(color_scheme="light")
    light = background()
    browser.prefer(color_scheme="dark")
    browser.until(lambda: background() != light)
    browser.click("#theme")
    assert background() == light
    browser.open(f"{server.url}/docs")
    assert background() == light


def test_nothing_moves_for_those_who_prefer_it(browser: Browser) -> None:
    see_figures(browser)
    moving = "return document.getAnimations().length"
    browser.prefer(reduced_motion="no-preference")
    browser.until(lambda: browser.run(moving) > 0)
    browser.prefer(reduced_motion="reduce")
    browser.until(lambda: browser.run(moving) == 0)


def test_the_api_is_shown_as_it_is_told(browser: Browser, server: Tallygate) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    browser.open(f"{server.url}/docs#get-status")
    browser.until(lambda: browser.sees("#get-status"))
    shown: list[str] = browser.run(
        "return [...document.querySelectorAll('.operation')].map((one) => one.ariaLabel)"
    )
    told_of = [f"{m} {path}" for path, methods in document["paths"].items() for m in methods]
    assert sorted(shown) == sorted(told_of)
    status = browser.text("#get-status")
    assert f"curl {server.url}/status" in status
    assert "saved_calls" in status
    count = browser.text("#post-v1-messages-count-tokens")
    for text in (
        "anthropic-version",
        "messages",
        "input_tokens",
        "529",
        "authorization: Bearer $KEY",
    ):
        assert text in count
    assert browser.run("return window.scrollY") > 0


def test_the_browser_leaves_nothing_behind() -> None:
    with Browser() as own:
        own.open("about:blank")
    assert own._driver.returncode is not None
    assert not own._folder.exists()


def test_where_too_many_look_it_says_so_and_goes_on(one_browser: Browser, start: Start) -> None:
    server = start({"model_list": model_list(own={"model": "estimate/claude"})})
    ask = httpx.Request("GET", f"{server.url}/status/stream", headers=BEARER)
    clients = [httpx.Client() for _ in range(MAX_STREAMS)]
    for client in clients:
        assert client.send(ask, stream=True).status_code == 200
    one_browser.open(server.url)
    sign_in(one_browser)
    wanted = "Too many streams of the status are open, trying again…"
    one_browser.until(lambda: one_browser.text("#state") == wanted)
    for client in clients:
        client.close()
    one_browser.until(lambda: one_browser.sees("#figures"))
