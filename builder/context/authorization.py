"""Who fetches a remote source: the value of the HTTP header Authorization, from a build's secrets of certain names.

They are BuildKit's (`source/git/source.go` and `client/llb/source.go`, `source/http/source.go`), of which the first
that was given counts:

    git     GIT_AUTH_HEADER.HOST  GIT_AUTH_TOKEN.HOST  GIT_AUTH_HEADER  GIT_AUTH_TOKEN
    http    HTTP_AUTH_TOKEN_HOST  HTTP_AUTH_HEADER_HOST

A header is sent as it is, the token of a repository as the password of `x-access-token`, that of a file as a bearer's.
HOST is what the address says: for git with its port, for files without. An empty secret counts as none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from builder.errors import ContextError

Secrets = Mapping[str, Callable[[], bytes]]
"""What reads each secret of a build when it is needed; that may raise StepFailed."""

_WEB = ("http://", "https://")


def git_authorization(secrets: Secrets, remote: str) -> str | None:
    """For the repository at `remote`; None without a secret, and where no header is sent. Raises ContextError,
    StepFailed."""
    if not secrets or not remote.startswith(_WEB):
        return None
    host = _host(remote)
    if not host:
        return None
    for end in (f".{host}", ""):
        if header := _read(secrets, f"GIT_AUTH_HEADER{end}"):
            return _sendable(header, f"GIT_AUTH_HEADER{end}")
        if token := _read(secrets, f"GIT_AUTH_TOKEN{end}"):
            from base64 import b64encode

            return "basic " + b64encode(b"x-access-token:" + token).decode()
    return None


def http_authorization(secrets: Secrets, url: str) -> str | None:
    """For the file at `url`; None without a secret. Raises ContextError, StepFailed."""
    if not secrets:
        return None
    host = _host(url)
    if not host:
        return None
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if token := _read(secrets, name := f"HTTP_AUTH_TOKEN_{host}"):
        return f"Bearer {_sendable(token, name)}"
    if header := _read(secrets, name := f"HTTP_AUTH_HEADER_{host}"):
        return _sendable(header, name)
    return None


def _host(address: str) -> str:
    """Whom an address names, with the port; '' for one that is malformed, which fetching it tells of."""
    try:
        return urlsplit(address).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _read(secrets: Secrets, name: str) -> bytes:
    return secrets[name]().strip() if name in secrets else b""


def _sendable(value: bytes, name: str) -> str:
    """A header's value as text: it can neither begin another header nor be refused with an error that quotes it."""
    text = value.decode("latin-1")
    if not text.isascii() or not text.isprintable():
        raise ContextError(
            f"the value of secret {name!r} is no HTTP header: it must be printable ASCII on one line",
            remedy="give it without line breaks in it",
        )
    return text
