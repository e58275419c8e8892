"""The local tier against a plain model of it: bounds, recency, ages, the newest count."""

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

    @rule(
        key=keys,
        tokens=st.integers(1, 99),
        extra=st.integers(0, 3),
        age_s=st.integers(0, 9),
        asked=st.integers(0, 5),
    )
    def put(self, key: bytes, tokens: int, extra: int, age_s: int, asked: int) -> None:
        record = Record(tokens, 0, b"x" * (extra * ENTRY_OVERHEAD_BYTES), asked_at_ns=asked)
        stored = self.tier.put(key, record, age_s)
        before = self.model.get(key)
        if before is not None and before[0].asked_at_ns > asked:
            assert not stored
            return
        born = self.now - age_s
        if before is not None and before[0].asked_at_ns == asked:
            born = min(born, before[1])  # the same count never becomes younger
        self.model.pop(key, None)
        self.model[key] = (record, born)
        while len(self.model) > MAX_ENTRIES or self.size() > MAX_BYTES:
            self.model.popitem(last=False)
        assert stored == (key in self.model)

    @rule(key=keys, max_age_s=st.integers(0, 9))
    def get(self, key: bytes, max_age_s: int) -> None:
        record, born = self.model.get(key, (None, 0.0))
        if record is not None and self.now - born >= max_age_s:
            record = None
        elif record is not None:
            self.model.move_to_end(key)
        assert self.tier.get(key, max_age_s) == record

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
