"""Credential helpers: the programs `docker-credential-NAME` that keep passwords in a keychain or get them from a cloud.

Source: the protocol of docker-credential-helpers. `get` reads the server's name from standard input and answers with
JSON, `store` reads JSON, `erase` the server's name. Errors come on standard output with a status that is not 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from builder.errors import RegistryError
from builder.oci.spec import NOT_JSON

_TIMEOUT = 30.0  # seconds; a helper may ask the user's keychain or a cloud's token service
_NOTHING = "credentials not found"  # the protocol's words for a helper that works and knows nothing
TOKEN_USER = "<token>"
"""The user name by which a helper says that the secret is an identity token."""


class HelperAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """What a helper knows of a server."""

    username: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return f"HelperAnswer({self.username!r}, …)"


class _Stored(msgspec.Struct, frozen=True):
    ServerURL: str
    Username: str
    Secret: str


class HelperError(RegistryError):
    """A helper is not installed, or failed."""


def get(name: str, server: str, environ: Mapping[str, str]) -> HelperAnswer | None:
    """What the helper knows of a server, None if nothing. Raises HelperError."""
    output = _run(name, "get", server.encode(), environ)
    if output is None:
        return None
    try:
        answer = msgspec.json.decode(output, type=HelperAnswer)
    except NOT_JSON:
        raise HelperError(f"the credential helper {_program(name)} answered with something that is not JSON") from None
    return answer if answer.secret else None


def store(name: str, server: str, answer: HelperAnswer, environ: Mapping[str, str]) -> None:
    """Have the helper keep a secret. Raises HelperError."""
    _run(name, "store", msgspec.json.encode(_Stored(server, answer.username, answer.secret)), environ)


def erase(name: str, server: str, environ: Mapping[str, str]) -> None:
    """Have the helper forget a server; one that knows nothing of it is content. Raises HelperError."""
    _run(name, "erase", server.encode(), environ)


def _run(name: str, action: str, data: bytes, environ: Mapping[str, str]) -> bytes | None:
    import subprocess

    program = _program(name)
    try:
        done = subprocess.run(
            [program, action], input=data, capture_output=True, timeout=_TIMEOUT, env=dict(environ), check=False
        )
    except FileNotFoundError:
        raise HelperError(
            f"the credential helper {program} is not installed", remedy="install it, or remove it from config.json"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it gave no answer within {_TIMEOUT:g} s"
        raise HelperError(f"the credential helper {program} failed: {reason}") from None
    if done.returncode == 0:
        return done.stdout
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    if _NOTHING in said:
        return None
    raise HelperError(f"the credential helper {program} failed: {said or f'status {done.returncode}'}")


def _program(name: str) -> str:
    return f"docker-credential-{name}"
