"""What can go wrong between us and a registry, said in the terms of the person who must mend it."""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import msgspec

from builder.errors import NotFoundError, RegistryError
from builder.oci.spec import NOT_JSON

_LONGEST_WAIT = 86_400.0  # seconds; who asks for more is not waited for anyway


class Transient(RegistryError):
    """A failure that may be gone at the next attempt. `retry_after`: seconds that the server asks to wait."""

    def __init__(
        self, cause: str, *, remedy: str | None = None, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(cause, remedy=remedy)
        self.retry_after = retry_after
        self.status = status


class Unreachable(Transient):
    """No connection was made."""


class Untrusted(RegistryError):
    """A connection was made, but TLS failed: nothing that another attempt would change."""


class Refused(RegistryError):
    """Who asked is not allowed to."""


def retry_after(value: str | None) -> float | None:
    """Seconds from a `Retry-After` header: a number, or an HTTP date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    if value.isascii() and value.strip().isdigit():
        return min(float(value.strip()[:18]), _LONGEST_WAIT)
    from email.utils import parsedate_to_datetime

    try:
        return min(max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0), _LONGEST_WAIT)
    except (ValueError, OverflowError):
        return None


class _Error(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct, frozen=True):
    errors: list[_Error] = msgspec.field(default_factory=list)


def refused(status: int, body: bytes, subject: str, host: str, credentials_path: str) -> RegistryError:
    """The error for an answer that is not what was hoped for. `subject` is what was asked for, as people write it.

    What the registry itself says (distribution-spec, "Error codes") becomes the details. Registries answer 401 or 403
    for a repository that does not exist too, so as not to tell strangers which ones do.
    """
    details = said(body, host)
    name = f"{status} {HTTPStatus(status).phrase}" if status in HTTPStatus._value2member_map_ else str(status)
    if status == 404:
        return NotFoundError(f"{subject} was not found", remedy="check the name and the tag", details=details)
    if status in (401, 403):
        return Refused(
            f"{host} refuses access to {subject} ({name}): it does not exist, or it needs other credentials",
            remedy=f"check the name, or log in: builder login {host}"
            + (f" (credentials are read from {credentials_path})" if credentials_path else ""),
            details=details,
        )
    if status == 400 and b"HTTPS server" in body:  # Go's server, which most registries are, says so
        return Untrusted(f"{host} speaks HTTPS, not HTTP", remedy=_http_setting(host, "false"))
    return RegistryError(f"{host} answered {name} for {subject}", details=details)


def said(body: bytes, host: str) -> tuple[str, ...]:
    """What a registry says of an error, a line each; nothing if it says nothing that can be read."""
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors
    except NOT_JSON:
        return ()
    words = (" ".join(": ".join(part for part in (e.code, e.message) if part)[:500].split()) for e in errors[:5])
    return tuple(f"{host}: {text}" for text in words)


@contextmanager
def explain(origin: str, host: str, connect: float, read: float) -> Iterator[None]:
    """Map httpx's errors to RegistryError; `connect` and `read` are the time limits in force, seconds."""
    import httpx

    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise Unreachable(f"{origin} did not answer within {connect:g} s", remedy=_NETWORK) from error
    except httpx.TimeoutException as error:
        raise Transient(f"{origin} was silent for {read:g} s", remedy=_NETWORK) from error
    except httpx.ProxyError as error:
        raise Unreachable(
            f"the proxy on the way to {origin} failed: {error}", remedy="check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
        ) from error
    except httpx.ConnectError as error:
        raise _connection_failure(origin, host, error) from error
    except httpx.NetworkError as error:
        raise Transient(f"the connection to {origin} broke: {_reason(error)}", remedy=_NETWORK) from error
    except httpx.RemoteProtocolError as error:
        if origin.startswith("http://") and "\\x15\\x03" in str(error):  # a TLS alert where HTTP was expected
            raise Untrusted(f"{origin} speaks HTTPS, not HTTP", remedy=_http_setting(host, "false")) from error
        raise Transient(f"{origin} broke off: {_reason(error)}", remedy=_NETWORK) from error
    except httpx.DecodingError as error:
        raise Transient(f"{origin} sent a body that cannot be decoded: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RegistryError(f"the request to {origin} failed: {_reason(error)}") from error


_NETWORK = "check the network, and HTTPS_PROXY where a proxy is needed"


def _connection_failure(origin: str, host: str, error: Exception) -> RegistryError:
    import ssl

    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Untrusted(
                f"the certificate of {origin} is not trusted: {cause.verify_message}",
                remedy=f'add its authority as ca = ["FILE"] under [registry."{host}"] in builder.toml',
            )
        if isinstance(cause, ssl.SSLError):
            text = str(cause)
            if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text or "HTTP_REQUEST" in text:
                return Untrusted(f"{origin} does not speak HTTPS", remedy=_http_setting(host, "true"))
            return Untrusted(
                f"no TLS connection to {origin}: {cause.reason or text}",
                remedy=f'if it wants a client certificate, set keypair under [registry."{host}"] in builder.toml',
            )
        if isinstance(cause, socket.gaierror):
            return Unreachable(f"the host name of {origin} cannot be resolved: {cause.strerror}", remedy=_NETWORK)
        if isinstance(cause, ConnectionRefusedError):
            return Unreachable(f"{origin} refuses connections", remedy="check that the registry runs, and its port")
    return Unreachable(f"{origin} cannot be reached: {_reason(error)}", remedy=_NETWORK)


def _http_setting(host: str, value: str) -> str:
    return f'set http = {value} under [registry."{host}"] in builder.toml'


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
