"""The fuzzer, for as long as a run of the tests can bear."""

import pytest

from tests.fuzz.reading import run


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_c15_what_is_nearly_right_is_sent_or_refused() -> None:
    seen = run(100_000, seed=0)
    print(seen)
    assert seen["400"]
    assert seen["sent"]
    assert seen["sent by some"]
