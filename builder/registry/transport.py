"""Talking to registries: the boundary to httpx.

A `Session` is one use of registries (a build, a pull, a push) and may be shared by threads. It keeps connections,
tokens and what it learned of each server, follows redirects, answers challenges and maps httpx's errors to
RegistryError. Nothing outside of this package sees httpx, which is imported when the first request is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from builder.config import Config
from builder.errors import Interrupted, RegistryError
from builder.progress import Message, Reporter, ignore
from builder.registry.auth import TokenAnswer, TokenRequest
from builder.registry.authorizer import Authorizer
from builder.registry.backoff import Backoff
from builder.registry.clients import Patience, make_client
from builder.registry.credentials import Credentials, CredentialStore
from builder.registry.endpoints import Endpoint, endpoints
from builder.registry.failures import Transient, Unreachable, explain, retry_after, said
from builder.registry.replies import Reply, Stream
from builder.registry.urls import is_same_origin, join, split

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})

Body = bytes | Callable[[], Iterator[bytes]]


class Session:
    """Connections to registries. Use it as a context manager; `close` also ends waits of other threads."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        credentials: Credentials | None = None,
        reporter: Reporter = ignore,
        patience: Patience | None = None,
        offline: bool = False,
    ) -> None:
        """`offline` asks token servers for identity tokens, see `identity_token`."""
        self.config = config
        self.environ = environ
        self.credentials = credentials or CredentialStore(environ)
        self.patience = patience or Patience()
        self.reporter = reporter
        self._clients: dict[tuple[Endpoint, str], httpx.Client] = {}
        self._authorizer = Authorizer(self.credentials, offline=offline)
        self._unreachable: set[Endpoint] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._closed.set()
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def endpoints(self, domain: str, *, push: bool = False) -> tuple[Endpoint, ...]:
        """The servers to ask for images of `domain`; those that could not be reached before come last."""
        found = endpoints(self.config, domain, push=push)
        return tuple(sorted(found, key=lambda endpoint: endpoint in self._unreachable))

    def identity_token(self, endpoint: Endpoint) -> str:
        """What the registry's token server gave to be kept instead of the password, '' if nothing."""
        return self._authorizer.identity_tokens.get(endpoint.host, "")

    def backoff(self) -> Backoff:
        """What says when to try an operation again, which begins now."""
        return Backoff(self.patience, self.pause)

    def pause(self, delay: float, reason: Transient, *, tell: bool) -> None:
        """Wait `delay` seconds, or raise Interrupted when the session is closed meanwhile. People are to be told of
        what takes long."""
        if tell:
            self.reporter(Message(f"{reason.cause}; trying again" + (f" in {delay:.0f} s" if delay >= 1 else "")))
        if self._closed.wait(delay):
            raise Interrupted("the transfer was stopped")

    def request(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        *,
        scopes: Sequence[str],
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        retry: bool = True,
    ) -> Reply:
        """Send a request and read its answer whole; `url` may be relative to the endpoint's origin.

        Any status is returned but those that are worth a retry (408, 425, 429, 5xx): with `retry` they are tried
        again, as broken connections are, and raised as Transient in the end. Raises RegistryError.
        """
        backoff = self.backoff()
        while True:
            try:
                with self.stream(endpoint, method, url, scopes=scopes, headers=headers, body=body) as stream:
                    return stream.read()
            except Transient as failure:
                if not retry:
                    raise
                backoff.wait(failure)

    @contextmanager
    def stream(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        *,
        scopes: Sequence[str],
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
    ) -> Iterator[Stream]:
        """Send a request once and give its answer unread. Raises Transient for what is worth a retry."""
        url = join(endpoint.origin, url)
        rejected: str | None = None
        for attempt in range(3):  # unauthenticated or with an old token; with a new one; with the scopes then asked for
            header = self._authorizer.header(endpoint, scopes, rejected, self._token_sender(endpoint))
            with self._redirected(endpoint, method, url, dict(headers or {}), header, body) as stream:
                if stream.status == 401 and attempt < 2 and is_same_origin(stream.origin, endpoint.origin):
                    again = rejected is not None
                    if self._authorizer.learn(endpoint, stream.challenges, scopes, refused=header, again=again):
                        stream.read()  # so that the connection can be used again
                        rejected = header
                        continue
                yield stream
                return

    def fetch(self, url: str, headers: Mapping[str, str]) -> AbstractContextManager[Stream]:
        """GET any URL without authentication (for layers that live outside of registries). `url` is absolute."""
        parts = split(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise RegistryError(f"{url!r} is not an HTTP URL")
        server = Endpoint(parts.scheme, parts.netloc, parts.netloc)
        return self._redirected(server, "GET", url, dict(headers), None, b"")

    @contextmanager
    def _redirected(
        self, endpoint: Endpoint, method: str, url: str, headers: dict[str, str], authorization: str | None, body: Body
    ) -> Iterator[Stream]:
        """Follow redirects; `authorization` is shown to the endpoint's own origin alone."""
        for _ in range(MAX_REDIRECTS + 1):
            parts = split(url)
            origin = f"{parts.scheme}://{parts.netloc}"
            shown = dict(headers)
            if authorization and is_same_origin(origin, endpoint.origin):
                shown["Authorization"] = authorization
            with self._send(endpoint, method, url, shown, body) as stream:
                location = stream.headers.get("location")
                if stream.status not in (301, 302, 303, 307, 308) or not location:
                    yield stream
                    return
            url = join(url, location)
            if split(url).scheme not in ("http", "https"):
                raise RegistryError(f"{origin} redirects to {url!r}, which is not an HTTP URL")
            if stream.status == 303 and method != "HEAD":
                method, body = "GET", b""
        raise RegistryError(f"{endpoint} redirects more than {MAX_REDIRECTS} times")

    @contextmanager
    def _send(self, endpoint: Endpoint, method: str, url: str, headers: dict[str, str], body: Body) -> Iterator[Stream]:
        parts = split(url)
        origin = f"{parts.scheme}://{parts.netloc}"

        def explaining() -> AbstractContextManager[None]:
            return self._explaining(origin, parts.netloc)

        client = self._client(endpoint, parts.scheme)
        try:
            with explaining():
                content = body if isinstance(body, bytes) else body()
                request = client.build_request(method, url, headers=headers, content=content or None)
                response = client.send(request, stream=True)
        except Unreachable:
            if parts.netloc == endpoint.host:
                self._unreachable.add(endpoint)
            raise
        try:
            stream = Stream(response, origin, explaining, self.patience)
            if stream.status in _RETRIED:
                raise self._transient(stream, response.reason_phrase)
            yield stream
        finally:
            response.close()

    def _transient(self, stream: Stream, phrase: str) -> Transient:
        """The error for a status that is worth a retry, with what the registry says of it (Docker Hub: which limit)."""
        seconds = retry_after(stream.headers.get("retry-after"))
        asked = f", and asks to wait {seconds:.0f} s" if seconds is not None else ""
        failure = Transient(
            f"{stream.origin} answered {stream.status} {phrase}".rstrip() + asked,
            retry_after=seconds,
            status=stream.status,
        )
        with suppress(RegistryError):
            failure.details = said(stream.read().body, split(stream.origin).netloc)
        if stream.status == 429:
            failure.remedy = "wait, or log in: most registries allow more to those they know"
        return failure

    @contextmanager
    def _explaining(self, origin: str, host: str) -> Iterator[None]:
        try:
            with explain(origin, host, self.patience.connect, self.patience.read):
                yield
        except Exception as error:
            if self._closed.is_set():  # another thread closed the connection under this one: anything may come of it
                raise Interrupted("the transfer was stopped") from error
            raise

    def _token_sender(self, endpoint: Endpoint) -> Callable[[TokenRequest], TokenAnswer]:
        """Sends token requests over the endpoint's client: a private token server usually shares its authority."""

        def send(request: TokenRequest) -> TokenAnswer:
            backoff = self.backoff()
            headers, body, method = dict(request.headers), b"", "GET"
            if request.form is not None:
                from urllib.parse import urlencode

                headers["Content-Type"] = "application/x-www-form-urlencoded"
                body, method = urlencode(request.form).encode(), "POST"
            while True:
                try:
                    # No redirects: they would carry the credentials elsewhere.
                    with self._send(endpoint, method, request.url, headers, body) as stream:
                        reply = stream.read()
                        return TokenAnswer(reply.status, reply.body)
                except Transient as failure:
                    backoff.wait(failure)

        return send

    def _client(self, endpoint: Endpoint, scheme: str) -> httpx.Client:
        """What talks to the endpoint, and where it redirects to, by this scheme."""
        with self._lock:
            if (endpoint, scheme) not in self._clients:
                if self._closed.is_set():
                    raise Interrupted("the transfer was stopped")
                self._clients[endpoint, scheme] = make_client(
                    self.config, self.environ, endpoint, scheme, self.patience
                )
            return self._clients[endpoint, scheme]
