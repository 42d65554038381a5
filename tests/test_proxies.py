from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest

from builder.errors import ProxyError
from builder.proxies import Proxies, of_environment, transport

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, Proxies()),
        ({"HTTP_PROXY": "http://a", "https_proxy": "b:1"}, Proxies("http://a", "http://b:1")),
        ({"HTTP_PROXY": "http://a", "http_proxy": "http://b"}, Proxies("http://a")),
        ({"ALL_PROXY": "socks5://a", "HTTPS_PROXY": "b"}, Proxies("socks5://a", "http://b")),
        ({"NO_PROXY": " A.example ,,10.0.0.0/8"}, Proxies(exceptions=("a.example", "10.0.0.0/8"))),
        ({"no_proxy": "*"}, Proxies(exceptions=("*",))),
    ],
)
def test_of_environment(environ: dict[str, str], found: Proxies) -> None:
    assert of_environment(environ) == found


@pytest.mark.parametrize(
    ("exceptions", "direct", "proxied"),
    [
        ("", ["localhost", "127.0.0.1", "127.3.2.1", "::1", "LOCALHOST"], ["a.example", "10.0.0.1", "::2"]),
        ("*", ["a.example", "10.0.0.1"], []),
        ("example.com", ["example.com", "a.example.com", "A.Example.COM."], ["anexample.com", "example.org"]),
        (".example.com", ["a.example.com", "b.a.example.com"], ["example.com", "anexample.com"]),
        ("*.example.com", ["a.example.com"], ["example.com"]),
        ("10.1.2.3", ["10.1.2.3"], ["10.1.2.4", "110.1.2.3"]),
        ("10.0.0.0/8", ["10.1.2.3", "10.255.255.255"], ["11.0.0.1", "10.0.0.0.example"]),
        ("10.1.2.3/8", ["10.9.9.9"], ["11.0.0.1"]),
        ("fd00::/8,2001:db8::1", ["fd12::1", "2001:db8::1", "2001:0db8:0::1"], ["fe80::1", "10.0.0.1"]),
        ("[2001:db8::1]", ["2001:db8::1"], ["2001:db8::2"]),
        ("[::1]", ["localhost"], ["a.example"]),
        ("a.example:443", ["a.example"], []),
        ("a.example:5000", [], ["a.example"]),
        ("[2001:db8::1]:443,10.0.0.1:443", ["2001:db8::1", "10.0.0.1"], []),
        ("10.0.0.0/x,/,:,[,a b", [], ["10.0.0.1", "a.example"]),
    ],
)
def test_exceptions(exceptions: str, direct: list[str], proxied: list[str]) -> None:
    """The rules of Go's `httpproxy`."""
    proxies = of_environment({"HTTPS_PROXY": PROXY, "NO_PROXY": exceptions})
    assert [proxies.for_url("https", host) for host in direct] == [""] * len(direct)
    assert [proxies.for_url("https", host, 443) for host in proxied] == [PROXY] * len(proxied)
    assert {proxies.for_url("http", host) for host in proxied} <= {""}


def test_each_request_goes_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one to which an answer redirects."""
    asked = []

    class Recorded(httpx.BaseTransport):
        def __init__(self, proxy: str = "", **_: Any) -> None:
            self.proxy = proxy

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.append((request.url.host, self.proxy))
            return httpx.Response(302, headers={"Location": "http://far.example/"})

    monkeypatch.setattr(httpx, "HTTPTransport", Recorded)
    chosen = transport(of_environment({"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}))
    with httpx.Client(transport=chosen, trust_env=False) as client:
        answer = client.get("http://10.1.2.3/")
        assert answer.next_request is not None
        client.send(answer.next_request)
    assert asked == [("10.1.2.3", ""), ("far.example", PROXY)]


@pytest.mark.parametrize("url", ["nonsense://me:hunter2@x", "http://me:hunter2@a:b", "socks4://x"])
def test_proxies_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ProxyError, match="proxy settings of the environment cannot be used") as caught:
        transport(of_environment({"ALL_PROXY": url}))
    assert "hunter2" not in str(caught.value)


def test_proxies_for_which_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ProxyError, match="socksio"):
        transport(of_environment({"ALL_PROXY": "socks5h://127.0.0.1:1080"}))
