"""Ports of EXPOSE."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import PlanError
from builder.plan.ports import parse_port

PORTS = {
    "80": ["80/tcp"],
    "0": ["0/tcp"],
    "65535/udp": ["65535/udp"],
    "80/TCP": ["80/tcp"],
    "80/sctp": ["80/sctp"],
    "80/": ["80/tcp"],
    "8000-8002": ["8000/tcp", "8001/tcp", "8002/tcp"],
    "80-80/udp": ["80/udp"],
    "+80-+81": ["80/tcp", "81/tcp"],
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
        ("x", "not a port number"), ("-1", "not a port number"), ("80-", "not a port number"), ("++1", "not a port"),
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
