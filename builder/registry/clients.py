"""Clients of httpx for registries: time limits, proxies, certificates."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import msgspec

from builder import proxies
from builder.config import Config
from builder.errors import ProxyError, RegistryError
from builder.registry.endpoints import Endpoint, tls_context

if TYPE_CHECKING:
    import ssl
    from http.cookiejar import Cookie, CookieJar

    import httpx


class Patience(msgspec.Struct, frozen=True):
    """How long to wait and how often to try; seconds. `read` is the longest silence within an answer."""

    connect: float = 15.0
    read: float = 60.0
    attempts: int = 6
    connect_attempts: int = 3
    first_delay: float = 0.25
    longest_delay: float = 15.0
    budget: float = 180.0


def make_client(
    config: Config, environ: Mapping[str, str], endpoint: Endpoint, scheme: str, patience: Patience
) -> httpx.Client:
    """What talks to an endpoint, and to where it redirects, by `scheme`. Raises RegistryError for certificates that
    cannot be read, and for proxies of the environment that cannot be used."""
    import ssl

    # Reading the system's certificates takes as long as loading httpx. What is for plain HTTP alone trusts nobody.
    reading = _Meanwhile(partial(tls_context, config, endpoint)) if scheme == "https" else None
    with suppress(ImportError):
        import httpcore  # noqa: F401  # as httpx does for its first client
    import httpx

    context = reading.result() if reading else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
    try:
        transport = proxies.transport(proxies.of_environment(environ), verify=context, limits=limits)
    except ProxyError as error:
        raise RegistryError(error.cause, remedy=error.remedy) from error
    return httpx.Client(
        transport=transport,
        trust_env=False,
        timeout=httpx.Timeout(patience.read, connect=patience.connect, pool=None),
        headers={"User-Agent": "builder", "Accept-Encoding": "identity"},
        cookies=cast("CookieJar", _NoCookies()),
        follow_redirects=False,
    )


class _NoCookies:
    """A jar that takes none, as Go's clients have none: whoever shows Harbor the cookie that it set is taken for a
    browser, and may not push."""

    def extract_cookies(self, response: object, request: object) -> None:
        pass

    def __iter__(self) -> Iterator[Cookie]:
        return iter(())


class _Meanwhile(threading.Thread):
    """Makes a TLS context while the caller does something else."""

    def __init__(self, make: Callable[[], ssl.SSLContext]) -> None:
        super().__init__(daemon=True)
        self._make = make
        self._made: ssl.SSLContext | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._made = self._make()
        except BaseException as error:
            self._error = error

    def result(self) -> ssl.SSLContext:
        """What was made. Raises what making it raised."""
        self.join()
        if self._error is not None:
            raise self._error
        assert self._made is not None
        return self._made
