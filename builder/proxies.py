"""Which proxy a request goes through, as the environment says it: by the rules of Go's `httpproxy`, which docker,
containerd, BuildKit and skopeo follow, and by which people's settings are made.

`HTTPS_PROXY` and `HTTP_PROXY` are for the URLs of these schemes, `ALL_PROXY` for both where they are not set; names in
lower case count where the others are not set. This machine itself is never asked through a proxy. Of `NO_PROXY`, a list
with commas, an item is `*`, an address, a network (`10.0.0.0/8`), or a domain with all below it (`.example.com` and
`*.example.com`: only those below it); all but networks may bear a port.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from builder.errors import ProxyError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    import httpx

PORTS = {"http": 80, "https": 443}


class Proxies(msgspec.Struct, frozen=True):
    """The proxies' URLs, '' for none, and the items of `NO_PROXY`."""

    http: str = ""
    https: str = ""
    exceptions: tuple[str, ...] = ()

    def for_url(self, scheme: str, host: str, port: int | None = None) -> str:
        """The proxy for a host (an IPv6 address without brackets); '' if it is asked directly."""
        proxy = self.https if scheme == "https" else self.http
        host = host.lower().rstrip(".")
        address = _address(host)
        if not proxy or host == "localhost" or (address is not None and address.is_loopback):
            return ""
        number = str(port or PORTS[scheme])
        return "" if any(_covers(item, host, address, number) for item in self.exceptions) else proxy


def of_environment(environ: Mapping[str, str]) -> Proxies:
    """What the variables say."""

    def value(name: str) -> str:
        return environ.get(name) or environ.get(name.lower()) or ""

    def url(name: str) -> str:
        text = value(name) or value("ALL_PROXY")
        return text if "://" in text or not text else f"http://{text}"

    items = (item.strip().lower() for item in value("NO_PROXY").split(","))
    return Proxies(url("HTTP_PROXY"), url("HTTPS_PROXY"), tuple(item for item in items if item))


def transport(proxies: Proxies, **settings: Any) -> httpx.BaseTransport:
    """What sends a client's requests, each through its proxy; `settings` are those of `httpx.HTTPTransport`. Give the
    client `trust_env=False` with it. Raises ProxyError."""
    import httpx

    direct = httpx.HTTPTransport(**settings)
    urls = {url for url in (proxies.http, proxies.https) if url}
    if not urls:
        return direct
    try:
        by_proxy = {url: httpx.HTTPTransport(proxy=url, **settings) for url in urls}
    except (ValueError, ImportError, httpx.InvalidURL) as error:  # ImportError: SOCKS needs a package
        raise ProxyError(
            f"the proxy settings of the environment cannot be used: {error}",
            remedy="mend HTTP_PROXY, HTTPS_PROXY or ALL_PROXY",
        ) from error

    class Chosen(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            url = request.url
            proxy = proxies.for_url(url.scheme, url.host, url.port)
            return by_proxy.get(proxy, direct).handle_request(request)

        def close(self) -> None:
            for each in (direct, *by_proxy.values()):
                each.close()

    return Chosen()


def _covers(item: str, host: str, address: IPv4Address | IPv6Address | None, port: str) -> bool:
    """Whether an item of `NO_PROXY` is about a host."""
    if item == "*":
        return True
    if "/" in item:
        from ipaddress import ip_network

        with suppress(ValueError):
            return address is not None and address in ip_network(item, strict=False)
    name, wanted = _split(item)
    if wanted not in ("", port):
        return False
    listed = _address(name)
    if listed is not None or address is not None:
        return listed == address
    name = name.removeprefix("*")
    return host.endswith(name) if name.startswith(".") else f".{host}".endswith(f".{name}")


def _split(item: str) -> tuple[str, str]:
    """An item's host, without brackets, and its port: `[::1]:80`, `::1`, `example.com:5000`."""
    name, colon, port = item.rpartition(":")
    if colon and port.isdigit() and (":" not in name or name.endswith("]")):
        return name.strip("[]"), port
    return item.strip("[]"), ""


def _address(host: str) -> IPv4Address | IPv6Address | None:
    from ipaddress import ip_address

    try:
        return ip_address(host)
    except ValueError:
        return None
