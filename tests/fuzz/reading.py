"""Fuzz what reads a request: decode, key, and what each adapter would send.

    make fuzz ARGS='--count 1000000 --seed 0'

Input N of seed S is made from ``S:N`` alone: ``--seed S --first N --count 1`` makes it again.
"""

import argparse
import json
import random
import time
from collections import Counter
from typing import Any

import msgspec

from adapters.base import CannotExpressError, Params, Secret
from adapters.estimate import Estimator
from adapters.registry import ADAPTERS
from app.errors import ProxyError
from app.question import Question, decode, decode_native
from cache.key import content_key
from tests.fuzz.mutants import mutant

LONGEST_S = 1.0
MODELS = {
    "anthropic": "claude-x",
    "bedrock": "anthropic.claude-x",
    "bedrock_mantle": "anthropic.claude-x",
    "gemini": "gemini-x",
    "vertex_claude": "claude-x@20250929",
    "vertex_gemini": "gemini-x",
}
ENDPOINTS = {
    name: adapter.endpoint(
        Params(
            model=MODELS[name],
            api_key=Secret("k"),
            vertex_project="p",
            vertex_location="us-east5",
            aws_region_name="us-east-1",
        ),
        {},
    )
    for name, adapter in ADAPTERS.items()
}


def check(headers: dict[str, str], body: bytes) -> str:
    """Read and translate one request, and say what became of it. Raises whatever it must not."""
    began = time.process_time()
    said = _unified(headers, body)
    _native(headers, body)
    assert time.process_time() - began < LONGEST_S, "it took too long"
    return said


def _unified(headers: dict[str, str], body: bytes) -> str:
    try:
        question = decode(headers, body)
    except ProxyError as error:
        return _refused(error)
    spaced = decode(headers, msgspec.json.format(body, indent=3))
    assert _key(spaced) == _key(question), "white space changes the key"
    assert Estimator().estimate(question.request.body) >= 1
    refused = 0
    for name, adapter in ADAPTERS.items():
        try:
            sent = adapter.request(question.request, ENDPOINTS[name])
        except CannotExpressError as error:
            str(error).encode()
            refused += 1
            continue
        _read(sent.body)
        for header, value in sent.headers:
            assert f"{header}{value}".isascii()
            assert f"{header}{value}".isprintable()
        if name == "anthropic":
            rest = question.request.body[1:]
            tail = b"," + rest if rest != b"}" else rest
            assert sent.body == b'{"model":"claude-x"' + tail
    return "sent" if not refused else "sent by some"


def _native(headers: dict[str, str], body: bytes) -> None:
    try:
        question = decode_native(headers, body, "beta=true")
    except ProxyError as error:
        _refused(error)
        return
    sent = ADAPTERS["anthropic"].request(question.request, ENDPOINTS["anthropic"])
    meant = _read(body)
    meant["model"] = "claude-x"
    assert _read(sent.body) == meant


def _refused(error: ProxyError) -> str:
    assert 400 <= error.status < 500
    assert json.loads(error.body("req_1"))["error"]["type"] == error.type
    return str(error.status)


def _key(question: Question) -> bytes:
    one = question.request
    return content_key(b"s", [one.body, one.version.encode(), *map(str.encode, one.betas)])


def _read(body: bytes) -> Any:
    """Read JSON with its numbers as they are spelled: Python reads no more than 4,300 digits."""
    return json.loads(body, parse_int=str, parse_float=str, parse_constant=_no_json)


def _no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def run(count: int, seed: int, first: int = 0) -> Counter[str]:
    """Check so many inputs; the first that fails is printed with what makes it again."""
    seen: Counter[str] = Counter()
    for number in range(first, first + count):
        headers, body = mutant(random.Random(f"{seed}:{number}"))
        try:
            seen[check(headers, body)] += 1
        except BaseException:
            print(f"--seed {seed} --first {number} --count 1\n{headers}\n{body!r}")
            raise
    return seen


def main() -> None:
    """Read the command line, and print what became of the inputs."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    began = time.perf_counter()
    seen = run(chosen.count, chosen.seed, chosen.first)
    print(
        f"{chosen.count} inputs, seed {chosen.seed}, {time.perf_counter() - began:.0f} s: "
        + ", ".join(f"{count} {what}" for what, count in seen.most_common())
    )


if __name__ == "__main__":
    main()
