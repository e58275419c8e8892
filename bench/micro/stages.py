"""The stages of the hot path: the product's own functions, and what each has to give."""

from collections.abc import Callable, Iterator
from itertools import count, cycle, repeat
from typing import Any

from adapters.registry import ADAPTERS
from app import answers
from app.ids import new_request_id
from app.memory import codec
from app.question import decode_after
from app.telemetry import CountEvent
from bench.micro.house import KEY, MODEL, TOKENS, Asked, House
from bench.micro.stage import Stage, Timed
from cache.local import LocalTier
from cache.tiers import Wanted

COUNTED = b'{"input_tokens":%d}' % TOKENS


def _head_known(house: House) -> Timed:
    asked = house.remember("repeat")
    return Timed(house.lane.understand, repeat(asked.raw), lambda got: got == asked.begun)


def _head_differs(house: House) -> Timed:
    heads = _with_field(house.remember("repeat"), b"x-request-id")
    understand = house.lane.understand
    first = understand(next(heads))
    known = first and first.known
    return Timed(understand, heads, lambda got: got.known is known and got.echo == "1")


def _head_new(house: House) -> Timed:
    asked = house.remember("repeat")

    def is_right(got: Any) -> bool:
        known = asked.begun.known
        return got.known is not known and got.known.says_all == known.says_all

    return Timed(house.lane.understand, _with_field(asked, b"x-new"), is_right)


def _with_field(asked: Asked, name: bytes) -> Iterator[bytes]:
    line, rest = asked.raw.split(b"\r\n", 1)
    return (b"%b\r\n%b: %d\r\n%b" % (line, name, number, rest) for number in count())


def _auth(house: House) -> Timed:
    asked = house.remember("repeat")
    caller = house.worker.authenticator.caller
    return Timed(caller, repeat(asked.headers), lambda got: got.is_master)


def _digest(house: House, scenario: str) -> Timed:
    asked = house.remember(scenario)

    def digest(body: bytes) -> object:
        begun = asked.begun.digest()
        begun.update(body)
        return begun.digest()

    return Timed(digest, repeat(asked.body), lambda got: got == asked.digest)


def _memo(house: House) -> Timed:
    asked = house.remember("repeat")
    find, caller = house.worker.repeats.find, asked.caller
    return Timed(
        lambda digest: find(digest, caller),
        repeat(asked.digest),
        lambda got: got[1].input_tokens == TOKENS,
    )


def _decode(house: House, scenario: str) -> Timed:
    asked = house.remember(scenario)
    said = asked.begun.known.said
    return Timed(
        lambda body: decode_after(said, body), repeat(asked.body), lambda got: got == asked.question
    )


def _key(house: House, scenario: str) -> Timed:
    asked = house.remember(scenario)
    place, caller, answer = house.keys.place, asked.caller, asked.answer
    # Of the answer, which the counter has found by a key of its own making.
    right = answer.place.key if answer.place else b""
    return Timed(
        lambda question: place(question, caller, answer.deployment),
        repeat(asked.question),
        lambda got: got.key == right,
    )


def _tier_local(house: House) -> Timed:
    key, get = _place_key(house), house.worker.tiers.get
    return Timed(lambda one: get(one, 3600), repeat(key), lambda got: got.input_tokens == TOKENS)


def _tier_host(house: House) -> Timed:
    # The worker remembers one of two at a time: what it is asked for next it has forgotten.
    both = [Wanted(_place_key(house, name), 3600, 3600, bytes) for name in ("repeat", "repeat-12k")]
    house.worker.tiers.local = LocalTier(max_entries=1, max_bytes=4096)
    for wanted in both:
        house.wait_for_host(wanted)
    return Timed(
        house.worker.tiers.look,
        cycle(both),
        lambda got: got.tier == "host" and got.record.input_tokens == TOKENS,
    )


def _place_key(house: House, scenario: str = "repeat") -> bytes:
    place = house.remember(scenario).answer.place
    return place.key if place else b""


def _answer(house: House) -> Timed:
    return Timed(
        lambda answer: answers.begin(new_request_id(), "") + answers.rest(answer, stays_open=True),
        repeat(house.remember("repeat").answer),
        _is_hit,
    )


def _is_hit(written: Any) -> bool:
    right_end = written.endswith(b"\r\n\r\n" + COUNTED)
    return written.startswith(b"HTTP/1.1 200 ") and b": tallygate; hit\r\n" in written and right_end


def _event(house: House) -> Timed:
    asked, emit = house.remember("repeat"), house.worker.telemetry.emit
    deployment = asked.answer.deployment
    event = CountEvent(
        time_s=0,
        request_id="",
        status=200,
        duration_ms=0,
        route="messages",
        source="cache",
        tier="local",
        input_tokens=TOKENS,
        caller=asked.caller.name,
        alias=MODEL,
        model=MODEL,
        provider=deployment.provider,
        upstream_model=deployment.endpoint.upstream_model,
        deployment=deployment.name,
        body_bytes=len(asked.body),
    )
    before = house.worker.metrics.render()
    return Timed(
        emit,
        repeat(event),
        lambda _got: house.worker.metrics.render() != before,
    )


def _repeat(house: House, scenario: str) -> Timed:
    return _received(house, repeat(house.remember(scenario).request))


def _repeat_ids(house: House) -> Timed:
    asked = house.remember("repeat")
    heads = _with_field(asked, b"x-request-id")
    return _received(house, (b"%b\r\n\r\n%b" % (head, asked.body) for head in heads))


def _repeat_heads(house: House) -> Timed:
    one = house.remember("repeat").request
    other = one.replace(KEY.encode(), f"{KEY}-00".encode())
    return _received(house, cycle((one, other)))


def _other_bytes(house: House) -> Timed:
    house.remember("other-bytes")
    questions = house.message("other-bytes").questions(lambda _body: TOKENS, 0, 1)
    return _received(house, (request for request, _, _ in questions))


def _received(house: House, requests: Iterator[bytes]) -> Timed:
    """A connection that is sent ``requests``; what it writes stays where it is."""
    protocol, transport = house.connect()
    return Timed(protocol.data_received, requests, lambda _got: _is_hit(transport.written))


def _request(house: House) -> Timed:
    asked = house.remember("repeat")
    deployment, counted = asked.answer.deployment, asked.question.request
    write = ADAPTERS[deployment.provider].request

    def is_right(got: Any) -> bool:
        return got.url.startswith(deployment.endpoint.base_url) and counted.body[1:-1] in got.body

    return Timed(lambda one: write(one, deployment.endpoint), repeat(counted), is_right)


def _count(house: House) -> Timed:
    read = ADAPTERS[house.remember("repeat").answer.deployment.provider].count
    return Timed(read, repeat(COUNTED), lambda got: got.input_tokens == TOKENS)


def _record(house: House) -> Timed:
    answer, keeper = house.remember("repeat").answer, codec(house.settings)
    key = answer.place.key if answer.place else b""
    return Timed(
        lambda record: keeper.encode(key, record),
        repeat(answer.record),
        lambda got: keeper.decode(key, got) == answer.record,
    )


def _sized(make: Callable[[House, str], Timed], scenario: str) -> Callable[[House], Timed]:
    return lambda house: make(house, scenario)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("head-known", "understand a head that was understood before", _head_known),
        Stage("head-differs", "a head that differs in what clients vary", _head_differs),
        Stage("head-new", "a head like none before: judged, parsed, authenticated", _head_new),
        Stage("auth", "tell the caller by its key", _auth),
        Stage("digest-300", "digest a request with a body of 300 bytes", _sized(_digest, "repeat")),
        Stage("digest-12k", "of 12,000 bytes", _sized(_digest, "repeat-12k")),
        Stage("digest-1m", "of 1,050,000 bytes", _sized(_digest, "repeat-1m")),
        Stage("memo", "look up exact bytes, and their count in the local tier", _memo),
        Stage("decode-300", "read a body of 300 bytes into a question", _sized(_decode, "repeat")),
        Stage("decode-12k", "of 12,000 bytes", _sized(_decode, "repeat-12k")),
        Stage("key-300", "compose the content key", _sized(_key, "repeat")),
        Stage("key-12k", "of a body of 12,000 bytes", _sized(_key, "repeat-12k")),
        Stage("tier-local", "look a key up in this process", _tier_local),
        Stage("tier-host", "in the host file: read, believe, promote", _tier_host),
        Stage("answer", "write a hit's answer that is not kept written", _answer),
        Stage("event", "tell the metrics and the log of a count", _event),
        Stage("repeat", "a whole repeat, from its bytes to its answer", _sized(_repeat, "repeat")),
        Stage("repeat-12k", "the same with 12,000 bytes", _sized(_repeat, "repeat-12k")),
        Stage("repeat-heads", "two callers take turns on one connection", _repeat_heads),
        Stage("repeat-ids", "a repeat with an id of its own in its head", _repeat_ids),
        Stage("other-bytes", "the same question in white space never seen before", _other_bytes),
        Stage("miss-request", "write what is sent to the provider", _request),
        Stage("miss-count", "read what the provider answers", _count),
        Stage("miss-record", "write the record for the shared tiers", _record),
    )
}
