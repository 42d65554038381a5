"""Keeps what each registry asked for and the tokens it gave, for all threads of a session.

A registry's challenge is learnt once; from then on the token for a scope is fetched before the request, which saves
a refused request each time. Tokens are kept by the registry that they were asked for, its realm, service and scopes,
and the repository, which may choose the user: a registry that names the token server of another one gets no token that
the other one's user has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from builder.errors import RegistryError
from builder.registry.auth import (
    Authorization,
    Challenge,
    TokenAnswer,
    TokenRequest,
    authorize,
    merge_scopes,
    parse_challenges,
    repository_of,
)
from builder.registry.credentials import Credential, Credentials
from builder.registry.endpoints import Endpoint

_EARLY = 10.0  # seconds before a token's end at which it is renewed, for the clocks and the request under way

Send = Callable[[TokenRequest], TokenAnswer]
_Key = tuple[str, str, str, str, tuple[str, ...]]


class Authorizer:
    """Gives the `Authorization` header for a request. Thread-safe; a token is asked for once, others wait for it."""

    def __init__(self, credentials: Credentials, *, offline: bool = False) -> None:
        self._credentials = credentials
        self._offline = offline
        self.identity_tokens: dict[str, str] = {}
        """What servers gave, by the registry's host, when tokens were asked for `offline`."""
        self._challenges: dict[Endpoint, list[Challenge]] = {}
        self._extra: dict[tuple[Endpoint, tuple[str, ...]], tuple[str, ...]] = {}
        self._tokens: dict[_Key, tuple[Authorization, float]] = {}
        self._locks: dict[_Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def learn(
        self, endpoint: Endpoint, headers: Sequence[str], scopes: Sequence[str], *, refused: str | None, again: bool
    ) -> bool:
        """Note the challenge of a 401 answer; `refused` is the header that was sent, `again` if it was a new one.

        False when another attempt would be the same: a password or a new token was refused, or nothing was asked for.
        """
        challenges = parse_challenges(headers)
        with self._lock:
            self._challenges[endpoint] = challenges
            asked = tuple(scope for c in challenges if (text := c.parameters.get("scope")) for scope in text.split())
            before = merge_scopes([*scopes, *self._extra.get((endpoint, tuple(scopes)), ())])
            self._extra[endpoint, tuple(scopes)] = asked
        if not challenges or (refused or "").startswith("Basic "):
            return False
        return not again or merge_scopes([*before, *asked]) != before

    def header(self, endpoint: Endpoint, scopes: Sequence[str], rejected: str | None, send: Send) -> str | None:
        """The header for a request with `scopes`, None while the registry asked for nothing.

        `rejected` is a header that was refused just now and must not be given again. Raises RegistryError.
        """
        with self._lock:
            challenges = self._challenges.get(endpoint)
            if not challenges:
                return None
            wanted = merge_scopes([*scopes, *self._extra.get((endpoint, tuple(scopes)), ())])
            bearer = next((c.parameters for c in challenges if c.scheme == "bearer"), {})
            repository = repository_of(scopes)
            key = (endpoint.origin, repository, bearer.get("realm", ""), bearer.get("service", ""), wanted)
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            kept = self._tokens.get(key)
            if kept is not None and kept[0].header != rejected and time.monotonic() < kept[1]:
                return kept[0].header
            fresh = self._authorize(endpoint, challenges, wanted, repository, send)
            lifetime = float("inf") if fresh.lifetime is None else max(fresh.lifetime - _EARLY, fresh.lifetime / 2)
            self._tokens[key] = (fresh, time.monotonic() + lifetime)
            return fresh.header

    def _authorize(
        self,
        endpoint: Endpoint,
        challenges: Sequence[Challenge],
        scopes: tuple[str, ...],
        repository: str,
        send: Send,
    ) -> Authorization:
        credential: Credential | None = self._credentials.get(endpoint.host, repository)
        secure = endpoint.scheme == "https"
        flow = authorize(challenges, credential, scopes, host=endpoint.host, secure=secure, offline=self._offline)
        try:
            request = next(flow)
            while True:
                request = flow.send(send(request))
        except StopIteration as done:
            result: Authorization = done.value
            if result.identity_token:
                self.identity_tokens[endpoint.host] = result.identity_token
            return result
        except RegistryError as error:
            trouble = self._credentials.trouble(endpoint.host)
            if trouble is not None:
                error.details = (*error.details, trouble)
            raise
