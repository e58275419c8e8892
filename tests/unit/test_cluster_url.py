"""Where the cluster's cache is, and what is said of a place that cannot be understood."""

from typing import Any

import pytest

from cache.cluster import ClusterCache
from cache.cluster_url import Server, parse, url_from


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://cache", Server("cache")),
        ("redis://cache/", Server("cache")),
        ("redis://cache:7000/3", Server("cache", 7000, 3)),
        ("rediss://cache:6380", Server("cache", 6380, tls=True)),
        ("redis://:pass@cache", Server("cache", password="pass")),
        ("redis://me:pass@cache/1", Server("cache", db=1, username="me", password="pass")),
        ("redis://me:p%40%3A%2F%23%3F@cache", Server("cache", username="me", password="p@:/#?")),
        ("redis://[::1]:7000/0", Server("::1", 7000)),
    ],
)
def test_a_url_is_read(url: str, server: Server) -> None:
    assert parse(url) == server


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://s3cret@cache", "scheme"),
        ("cache:6379", "scheme"),
        ("redis:///0", "host"),
        ("redis://:s3cret@", "host"),
        ("redis://[::1", "host"),
        ("redis://:s3cret@cache:0", "port"),
        ("redis://:s3cret@cache:99999", "port"),
        ("redis://:s3/cret@cache:6379", "host"),
        ("redis://me:s3/cret@cache:6379", "port"),
        ("redis://cache/s3cret", "database"),
        ("redis://cache/-1", "database"),
        ("redis://cache/1/2", "database"),
        ("redis://:s3?cret@cache", "query"),
        ("redis://:s3#cret@cache", "fragment"),
        ("redis://cache?db=1", "query"),
        ("redis://s3cret@cache", "user"),
    ],
)
def test_a_wrong_url_is_refused_by_its_part_and_not_quoted(url: str, part: str) -> None:
    with pytest.raises(ValueError, match=part) as refused:
        ClusterCache(url)
    assert "cret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("namespace", ["", "a b", "a*", "a[b]", "{a}", "ä", "x" * 65, "a\n"])
def test_a_namespace_that_could_touch_other_keys_is_refused(namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        ClusterCache("redis://cache", namespace=namespace)


def test_a_servers_text_names_no_credential() -> None:
    server = parse("rediss://someone:s3cret@[::1]:7000/2")
    assert str(server) == "rediss://[::1]:7000/2"
    assert repr(server) == "<Server rediss://[::1]:7000/2>"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"type": "redis", "host": "cache"}, ("redis://cache:6379/0", "tallygate", None)),
        (
            {"host": "cache", "port": "7000", "ttl": "600"},
            ("redis://cache:7000/0", "tallygate", 600),
        ),
        (
            {
                "type": "redis",
                "host": "c",
                "port": 1,
                "db": 2,
                "ssl": True,
                "namespace": "litellm.x",
            },
            ("rediss://c:1/2", "litellm.x", None),
        ),
        (
            {"type": "redis", "host": "c", "username": "me@", "password": "p:/#?%"},
            ("redis://me%40:p%3A%2F%23%3F%25@c:6379/0", "tallygate", None),
        ),
        (
            {"type": "redis", "host": "::1", "password": "p"},
            ("redis://:p@[::1]:6379/0", "tallygate", None),
        ),
        (
            {"type": "redis", "url": "rediss://:p@c:1/2", "ttl": 1.5, "mode": "default_on"},
            ("rediss://:p@c:1/2", "tallygate", 1.5),
        ),
        ({"type": "local", "ttl": 60}, None),
    ],
)
def test_litellms_parameters_are_translated(params: dict[str, Any], expected: object) -> None:
    assert url_from(params) == expected


def test_a_password_survives_the_translation() -> None:
    password = "p@:/?#%[]{}ä \\\"'"
    translated = url_from({"type": "redis", "host": "c", "password": password})
    assert translated is not None
    assert parse(translated[0]).password == password


@pytest.mark.parametrize(
    ("params", "remedy"),
    [
        ({"type": "s3"}, "type: s3 is not supported; use redis"),
        ({"type": "disk"}, "type: disk is not supported; use redis"),
        ({"type": "redis-semantic"}, "use redis"),
        ({"type": "qdrant-semantic"}, "use redis"),
        ({"type": "redis", "startup_nodes": [{"host": "a"}]}, "startup_nodes.*name one server"),
        ({"type": "redis", "sentinel_nodes": [["a", 1]]}, "sentinel_nodes.*name one server"),
        ({"type": "redis"}, "host: missing; give host and port, or url"),
        ({"type": "redis", "host": "c", "port": "s3cret"}, "port must be a number"),
        ({"type": "redis", "host": "c", "db": "s3cret"}, "database must be a number"),
        ({"type": "redis", "host": "c", "username": "s3cret"}, "user without a password"),
        ({"type": "redis", "host": "c", "ssl": "s3cret"}, "ssl: true or false"),
        ({"type": "redis", "host": "c", "ttl": "s3cret"}, "ttl: a number of seconds"),
        ({"type": "redis", "host": "c", "ttl": 0}, "ttl: a number of seconds"),
        ({"type": "redis", "host": "c", "ttl": float("nan")}, "ttl: a number of seconds"),
        ({"type": "redis", "url": "http://s3cret"}, "scheme"),
        ({"type": "redis", "host": "c", "namespace": "s3cret*"}, "namespace"),
    ],
)
def test_what_is_not_spoken_is_refused_with_a_remedy(params: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as refused:
        url_from(params)
    assert "s3cret" not in str(refused.value)
