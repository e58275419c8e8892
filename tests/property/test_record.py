"""Bytes that were meddled with are never read as a count."""

import random

from hypothesis import given
from hypothesis import strategies as st

from cache.record import BadRecordError, Codec, Record

CORRUPTIONS = 100_000
CODEC = Codec(b"a secret")

texts = st.text(max_size=20)
records = st.builds(
    Record,
    input_tokens=st.integers(1, 2**64 - 1),
    counted_at_s=st.integers(0, 2**64 - 1),
    extra=st.binary(max_size=50),
    dropped=st.binary(max_size=50),
    asked_at_ns=st.integers(0, 2**64 - 1),
    upstream_model=texts,
    generation=st.integers(0, 2**64 - 1),
)


def read(codec: Codec, key: bytes, data: bytes) -> Record | None:
    try:
        return codec.decode(key, data)
    except BadRecordError:
        return None


@given(st.binary(max_size=40), records)
def test_what_was_written_is_read(key: bytes, record: Record) -> None:
    assert CODEC.decode(key, CODEC.encode(key, record)) == record


@given(st.binary(max_size=40), st.binary(max_size=40), records)
def test_a_record_counts_under_its_own_key_and_secret_only(
    key: bytes, other: bytes, record: Record
) -> None:
    data = CODEC.encode(key, record)
    assert read(CODEC, other, data) == (record if other == key else None)
    assert read(Codec(b"another secret"), key, data) is None


@given(st.binary(max_size=40), records, st.data())
def test_no_part_of_one_record_is_at_home_in_another(
    key: bytes, record: Record, data: st.DataObject
) -> None:
    whole = CODEC.encode(key, record)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    patched = whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:]
    assert read(CODEC, key, patched) == (record if patched == whole else None)


def corrupt(dice: random.Random, data: bytes, foreign: bytes) -> bytes:
    """Flip bits, cut, lengthen, swap halves, overwrite: one of them."""
    at = dice.randrange(len(data))
    match dice.randrange(6):
        case 0:
            return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data + dice.randbytes(dice.randrange(1, 9))
        case 3:
            return data[:at] + foreign[at:]
        case 4:
            return data[:at] + dice.randbytes(8) + data[at + 8 :]
        case _:
            return dice.randbytes(len(data))


def test_c5_a_hundred_thousand_corruptions_give_no_wrong_count() -> None:
    dice = random.Random(20261125)
    right = {}
    for number in range(100):
        key = dice.randbytes(32)
        record = Record(number + 1, dice.getrandbits(31), asked_at_ns=dice.getrandbits(61))
        right[key] = CODEC.encode(key, record), record
    keys = list(right)
    wrong = refused = 0
    for _ in range(CORRUPTIONS):
        key = dice.choice(keys)
        data, record = right[key]
        found = read(CODEC, key, corrupt(dice, data, right[dice.choice(keys)][0]))
        refused += found is None
        wrong += found is not None and found != record
    assert wrong == 0
    assert refused > 0.9 * CORRUPTIONS
