"""Ports, signals and paths."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import PlanError
from builder.plan.paths import clean, destination, has_wildcards, join, normalise
from builder.plan.ports import parse_port
from builder.plan.signals import check_signal

PORTS = {
    "80": ["80/tcp"],
    "0": ["0/tcp"],
    "65535/udp": ["65535/udp"],
    "80/TCP": ["80/tcp"],
    "80/sctp": ["80/sctp"],
    "80/": ["80/tcp"],
    "8000-8002": ["8000/tcp", "8001/tcp", "8002/tcp"],
    "80-80/udp": ["80/udp"],
    "8080:80": ["80/tcp"],
    ":80": ["80/tcp"],
    "8000-8001:80-81": ["80/tcp", "81/tcp"],
    "8000-8005:80": ["80/tcp"],
    "127.0.0.1:8080:80/tcp": ["80/tcp"],
    "127.0.0.1::80": ["80/tcp"],
    "[::1]:8080:80": ["80/tcp"],
}


@pytest.mark.parametrize("text", PORTS)
def test_ports(text: str) -> None:
    assert parse_port(text) == PORTS[text]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no port"), ("/tcp", "no port"), ("80/icmp", "unknown protocol"), ("65536", "not a port number"),
        ("x", "not a port number"), ("-1", "not a port number"), ("80-", "not a port number"),
        ("٨٠", "not a port number"), ("9" * 5000, "not a port number"), ("81-80", "ends before it starts"),
        ("1-2:3-5", "differ in length"), ("nohost:1:2", "not an IP address"), ("80-81-82", "not a port number"),
    ],
)  # fmt: skip
def test_what_is_no_port(text: str, why: str) -> None:
    with pytest.raises(PlanError, match="invalid port") as caught:
        parse_port(text)
    assert why in caught.value.cause
    assert caught.value.remedy


@given(st.text("0123456789-:/.[]tcpudx", max_size=16))
def test_any_text_is_a_port_or_refused(text: str) -> None:
    try:
        ports = parse_port(text)
    except PlanError:
        return
    assert ports
    for port in ports:
        assert parse_port(port) == [port]


@pytest.mark.parametrize(
    "text", ["SIGTERM", "TERM", "sigterm", "Kill", "9", "+9", "-3", "64", "RTMIN+15", "SIGRTMAX-1", "IOT"]
)
def test_signals(text: str) -> None:
    check_signal(text)


@pytest.mark.parametrize(
    "text", ["", "0", "-0", "SIG", "SIGSIGTERM", "NONSENSE", "RTMIN+16", "+-9", "--9", "9 ", "٩", "9" * 5000]
)
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(PlanError, match="invalid signal") as caught:
        check_signal(text)
    assert caught.value.remedy


# Go's path.Clean, from the table of its own tests (path/path_test.go)
CLEAN = {
    "": ".", "abc": "abc", "abc/def": "abc/def", "a/b/c": "a/b/c", ".": ".", "..": "..", "../..": "../..", "/": "/",
    "/abc": "/abc", "abc/": "abc", "abc/def/": "abc/def", "./": ".", "../": "..", "/abc/": "/abc",
    "abc//def//ghi": "abc/def/ghi", "//abc": "/abc", "///abc": "/abc", "//abc//": "/abc", "//": "/",
    "abc/./def": "abc/def", "/./abc/def": "/abc/def", "abc/.": "abc", "abc/def/ghi/../jkl": "abc/def/jkl",
    "abc/def/..": "abc", "abc/def/../..": ".", "/abc/def/../..": "/", "abc/def/../../..": "..",
    "/abc/def/../../..": "/", "abc/def/../../../ghi/jkl/../../../mno": "../../mno", "/../abc": "/abc",
    "abc/./../def": "def", "abc//./../def": "def", "abc/../../././../def": "../../def",
}  # fmt: skip


@pytest.mark.parametrize("path", CLEAN)
def test_clean(path: str) -> None:
    assert clean(path) == CLEAN[path]


JOINED = {
    ("a", "b"): "a/b", ("a", ""): "a", ("", "b"): "b", ("/", "a"): "/a", ("/", "/a"): "/a", ("a/", "b"): "a/b",
    ("a/", ""): "a", ("", ""): "", ("/", ""): "/", ("/a", "../../b"): "/b", (): "",
}  # fmt: skip


@pytest.mark.parametrize("parts", JOINED)
def test_join(parts: tuple[str, ...]) -> None:
    assert join(*parts) == JOINED[parts]


@given(st.text("ab./", max_size=12))
def test_cleaning_twice_changes_nothing(path: str) -> None:
    once = clean(path)
    assert clean(once) == once
    assert "//" not in once
    assert once.startswith("/") == path.startswith("/")
    assert once == "/" or not once.endswith("/")
    assert posixpath.normpath(once) == once


@pytest.mark.parametrize(
    ("parent", "path", "expected"),
    [
        ("/w", "a", "/w/a"), ("/w", "../a", "/a"), ("/w", "/a", "/a"), ("/w", "", "/w"), ("", "a", "/a"),
        ("w", "a", "/w/a"), ("/w/", "a/", "/w/a"), ("/w", "/a/", "/a/"), ("/w", "/a/../b", "/a/../b"),
    ],
)  # fmt: skip
def test_normalise(parent: str, path: str, expected: str) -> None:
    assert normalise(parent, path) == expected


@pytest.mark.parametrize(
    ("workdir", "path", "expected"),
    [
        ("/w", ".", "/w/"), ("/w", "", "/w/"), ("/w", "./", "/w/"), ("/w", "a", "/w/a"), ("/w", "a/", "/w/a/"),
        ("/w", "a/.", "/w/a/."), ("/", ".", "/"), ("", "a", "/a"), ("/w", "/", "/"), ("/w", "/a/", "/a/"),
        ("/w", "/a/.", "/a/./."), ("/w", "..", "/"), ("/w", "../b/", "/b/"), ("/w", "/a/../b", "/a/../b"),
    ],
)  # fmt: skip
def test_destinations(workdir: str, path: str, expected: str) -> None:
    assert destination(workdir, path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", False),
        ("a*", True),
        ("a?", True),
        ("[a]", True),
        ("a]", False),
        ("a\\*", False),
        ("a\\\\*", True),
        ("a\\", False),
    ],
)
def test_wildcards(path: str, expected: bool) -> None:
    assert has_wildcards(path) is expected
