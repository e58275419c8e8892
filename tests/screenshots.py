"""Renew the pictures of the pages in docs/images: ``python -m tests.screenshots [SECONDS]``.

A server of two workers under a made-up day: four clients that mostly repeat themselves, one
provider that fails. The figures in the pictures are what it told.
"""

import math
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from bench.provider import SimulatedProvider
from tests.browser import ENTER, Browser
from tests.e2e.exchange import BEARER, COUNT, anthropic, model_list
from tests.server import KEY, ROOT, Tallygate

IMAGES = ROOT / "docs" / "images"
NAMES = ("claude-sonnet",) * 6 + ("claude-haiku",) * 3 + ("gemini-flash",) * 2 + ("claude-opus",)
PROMPT = "Summarise the attached minutes in five sentences, and name who has to do what by when."


def _config(good: str, bad: str) -> dict[str, Any]:
    gemini = {"model": "gemini/gemini-2.5-flash", "api_base": good, "api_key": "AIza-upstream"}
    names = {
        "claude-sonnet": anthropic("claude-sonnet-4-5", good, rpm=4000),
        "claude-haiku": anthropic("claude-haiku-4-5", good),
        "gemini-flash": {**gemini, "rpm": 3000},
        "claude-opus": anthropic("claude-opus-4-1", good, rpm=600),
        "claude-batch": anthropic("claude-opus-4-1", bad, rpm=60),
        "local-estimate": {"model": "estimate/claude"},
    }
    return {"model_list": model_list(**names), "cache": {"host": {"enabled": False}}}


def _ask(url: str, seed: int, stop: threading.Event) -> None:
    chance = random.Random(seed)
    users = [f"{name}@example.com" for name in ("ada", "grace", "edsger", "barbara", "alan")]
    with httpx.Client(base_url=url, headers=BEARER, timeout=30) as client:
        while not stop.wait(chance.random() * 0.006 * (1.4 + math.sin(time.monotonic() / 7))):
            known = chance.random() < 0.98
            text = f"question {int(chance.paretovariate(0.5)) % 300 if known else chance.random()}"
            name = chance.choice(NAMES) if chance.random() < 0.997 else "claude-batch"
            user = users[min(int(chance.expovariate(0.7)), len(users) - 1)]
            messages = [{"role": "user", "content": text * 20}]
            client.post(COUNT, json={"model": name, "messages": messages, "user": user})


def _picture(browser: Browser, name: str, width: int, height: int, scheme: str) -> None:
    browser.prefer(color_scheme=scheme)
    browser.resize(width, height)
    time.sleep(1.2)
    path = IMAGES / f"{name}.png"
    browser.screenshot(path)
    print(f"{path}: {path.stat().st_size:,} bytes")


def main(seconds: float) -> None:
    IMAGES.mkdir(exist_ok=True)
    stop = threading.Event()
    with (
        SimulatedProvider() as good,
        SimulatedProvider() as bad,
        tempfile.TemporaryDirectory() as folder,
        Tallygate(Path(folder), _config(good.url, bad.url), workers=2) as server,
    ):
        good.behave(delay_s=0.12)
        bad.behave(status=503)
        clients = [
            threading.Thread(target=_ask, args=(server.url, seed, stop)) for seed in range(4)
        ]
        with Browser() as browser:
            browser.open(server.url)
            browser.until(lambda: browser.sees("#sign-in"))
            browser.write("#key", KEY)
            browser.press(ENTER)
            browser.until(lambda: browser.sees("#figures"))
            for one in clients:
                one.start()
            try:
                time.sleep(seconds)
                browser.write("#prompt", PROMPT)
                browser.click("#count")
                browser.until(lambda: " counted it." in browser.text("#try-state"))
                browser.run("document.activeElement.blur(); scrollTo(0, 0);")
                _picture(browser, "page-light", 1280, 1000, "light")
                _picture(browser, "page-dark", 1280, 1000, "dark")
                _picture(browser, "page-phone", 360, 1000, "light")
                browser.resize(1280, 1000)
                browser.run("document.querySelector('.try').scrollIntoView(); scrollBy(0, -70)")
                _picture(browser, "page-try", 1280, 1000, "light")
                browser.open(f"{server.url}/docs")
                browser.until(lambda: browser.sees(".operation"))
                _picture(browser, "page-docs", 1280, 800, "light")
            finally:
                stop.set()
                for one in clients:
                    one.join()


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 110)
