"""The local tier against a plain model of it: bounds, recency, expiry."""

from collections import OrderedDict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache.local import ENTRY_OVERHEAD_BYTES, LocalTier
from cache.record import Record

MAX_ENTRIES = 4
MAX_BYTES = 6 * ENTRY_OVERHEAD_BYTES
keys = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"])


class LocalTierMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.tier = LocalTier(MAX_ENTRIES, MAX_BYTES, clock=lambda: self.now)
        self.model: OrderedDict[bytes, tuple[Record, float]] = OrderedDict()

    @rule(key=keys, tokens=st.integers(1, 99), extra=st.integers(0, 3), ttl_s=st.integers(-1, 9))
    def put(self, key: bytes, tokens: int, extra: int, ttl_s: int) -> None:
        record = Record(tokens, 0, b"x" * (extra * ENTRY_OVERHEAD_BYTES))
        self.tier.put(key, record, ttl_s)
        self.model.pop(key, None)
        if ttl_s > 0:
            self.model[key] = (record, self.now + ttl_s)
        while len(self.model) > MAX_ENTRIES or self.size() > MAX_BYTES:
            self.model.popitem(last=False)

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        record, expires = self.model.get(key, (None, 0.0))
        if record is not None and expires <= self.now:
            del self.model[key]
            record = None
        elif record is not None:
            self.model.move_to_end(key)
        assert self.tier.get(key) == record

    @rule(seconds=st.integers(0, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    def size(self) -> int:
        return sum(ENTRY_OVERHEAD_BYTES + len(record.extra) for record, _ in self.model.values())

    @invariant()
    def stays_within_its_bounds(self) -> None:
        assert len(self.tier) == len(self.model) <= MAX_ENTRIES
        assert self.tier.size_bytes == self.size() <= MAX_BYTES


LocalTierMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestLocalTier = LocalTierMachine.TestCase
