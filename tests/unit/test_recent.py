"""The map for what comes again and again."""

from app.recent import Recent


def test_what_is_put_again_and_again_pushes_nothing_out() -> None:
    recent: Recent[int] = Recent(max_entries=8, max_key_bytes=80)
    recent.put(b"rare", 1)
    for number in range(100):
        recent.put(b"frequent", number)
    assert recent.get(b"rare") == 1
    assert recent.get(b"frequent") == 99


def test_what_comes_once_pushes_only_what_comes_once_out() -> None:
    """By their number, and by their bytes."""
    for size in (1, 20):
        recent: Recent[int] = Recent(max_entries=100, max_key_bytes=1_000)
        for number in range(1_000):
            recent.put(b"%0*d" % (size + 3, number), number)
            recent.put(b"again", -1)
            assert recent.get(b"again") == -1
            assert len(recent) <= 100
        assert recent.get(b"%0*d" % (size + 3, 0)) is None
