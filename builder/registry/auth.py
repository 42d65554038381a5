"""How a registry's challenge becomes an `Authorization` header, without any I/O.

`authorize` is a generator: it yields the token request to be sent and is sent the answer, so that it can be tested
without a network and driven by any transport. Sources: RFC 9110 section 11 (the header's grammar), the
distribution project's token authentication (`GET realm?service=…&scope=…`) and its OAuth 2 form for identity tokens.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import base64
import re
from collections.abc import Generator, Iterable, Sequence
from urllib.parse import urlencode

import msgspec

from builder.errors import RegistryError
from builder.oci.spec import NOT_JSON
from builder.registry.credentials import Credential
from builder.registry.failures import Refused
from builder.registry.urls import split

CLIENT = "builder"
DEFAULT_LIFETIME = 60  # seconds: the protocol's default, and the least a server may give

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|$|(?=,))")


class Challenge(msgspec.Struct, frozen=True):
    """One way to authenticate: the scheme (`bearer` or `basic`, lower case) and its parameters."""

    scheme: str
    parameters: dict[str, str]


class TokenRequest(msgspec.Struct, frozen=True):
    """A request for a token. With `form` it is a POST of that form, else a GET."""

    url: str
    headers: dict[str, str]
    form: dict[str, str] | None = None


class TokenAnswer(msgspec.Struct, frozen=True):
    """The token server's answer."""

    status: int
    body: bytes


class Authorization(msgspec.Struct, frozen=True):
    """A header's value and for how many seconds it is good (None: until refused).

    `identity_token` can be kept instead of the password, where it was asked for and the server gives one.
    """

    header: str
    lifetime: float | None = None
    identity_token: str = ""

    def __repr__(self) -> str:
        return "Authorization(…)"


class _Token(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: float | None = None


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read `WWW-Authenticate` headers. What is malformed is passed over: a challenge that is not understood is none."""
    found = []
    for header in headers:
        position = 0
        while match := _SCHEME.match(header, position):
            position = match.end()
            parameters: dict[str, str] = {}
            while pair := _PARAMETER.match(header, position):
                quoted, plain = pair[2], pair[3]
                parameters[pair[1].lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                position = pair.end()
            found.append(Challenge(match[1].lower(), parameters))
    return found


def repository_scope(name: str, *actions: str) -> str:
    """`repository:library/alpine:pull`; actions are `pull` and `push`."""
    return f"repository:{name}:{','.join(actions)}"


def repository_of(scopes: Sequence[str]) -> str:
    """The repository that the first of a request's scopes is about, '' if it is about none."""
    kind, _, rest = scopes[0].partition(":") if scopes else ("", "", "")
    return rest.rpartition(":")[0] if kind == "repository" else ""


def merge_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Each resource once, with all of its actions: what is asked for and what the challenge adds, in a stable order.

    What is not of the form TYPE:NAME:ACTIONS is kept as it is: public.ecr.aws wants the scope `aws`.
    """
    actions: dict[str, set[str]] = {}
    others: set[str] = set()
    for scope in scopes:
        resource, colon, wanted = scope.rpartition(":")
        if colon:
            actions.setdefault(resource, set()).update(wanted.split(","))
        else:
            others.add(scope)
    merged = (f"{resource}:{','.join(sorted(actions[resource]))}" for resource in sorted(actions))
    return (*merged, *sorted(others))


def authorize(
    challenges: Sequence[Challenge],
    credential: Credential | None,
    scopes: Sequence[str],
    *,
    host: str,
    secure: bool,
    offline: bool = False,
) -> Generator[TokenRequest, TokenAnswer, Authorization]:
    """Answer the challenges of registry `host` (`secure`: it was reached by HTTPS) for `scopes`.

    Without a credential an anonymous token is asked for. `offline` asks for an identity token too, as logging in does.
    Raises RegistryError when no challenge can be answered.
    """
    bearer = next((c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")), None)
    if bearer is not None:
        if credential is not None and credential.registry_token:
            return Authorization(f"Bearer {credential.registry_token}")
        return (yield from _bearer(bearer, credential, scopes, host, secure, offline))
    if any(challenge.scheme == "basic" for challenge in challenges):
        if credential is None or not credential.password:
            raise Refused(f"{host} asks for a user name and a password", remedy=f"log in: builder login {host}")
        return Authorization(_basic(credential))
    offered = ", ".join(challenge.scheme for challenge in challenges) or "nothing"
    raise RegistryError(f"{host} asks for an authentication that is not supported (it offers {offered})")


def _bearer(
    challenge: Challenge, credential: Credential | None, scopes: Sequence[str], host: str, secure: bool, offline: bool
) -> Generator[TokenRequest, TokenAnswer, Authorization]:
    realm = challenge.parameters["realm"]
    server = split(realm)
    if server.scheme not in ("http", "https") or not server.netloc:
        raise RegistryError(f"{host} names a token server that is not a URL: {realm!r}")
    if credential is not None and secure and server.scheme == "http":
        raise RegistryError(
            f"{host} asks to send its credentials over plain HTTP to {server.netloc}",
            remedy="mend the registry's token realm",
        )
    service = challenge.parameters.get("service", "")
    if credential is not None and credential.identity_token:
        form = {"grant_type": "refresh_token", "refresh_token": credential.identity_token, "client_id": CLIENT}
        form |= {"service": service, "scope": " ".join(scopes)}
        request = TokenRequest(realm, {}, form)
    else:
        query = ([("service", service)] if service else []) + [("scope", scope) for scope in scopes]
        headers = {}
        if credential is not None and credential.password:
            query.append(("account", credential.username))
            headers["Authorization"] = _basic(credential)
        if offline:
            query += [("offline_token", "true"), ("client_id", CLIENT)]
        separator = "&" if server.query else "?"
        request = TokenRequest(f"{realm}{separator}{urlencode(query)}" if query else realm, headers)
    answer = yield request
    if answer.status != 200:
        raise _refused(answer, server.netloc, host, credential)
    try:
        token = msgspec.json.decode(answer.body, type=_Token)
    except NOT_JSON as error:
        raise RegistryError(f"the token server {server.netloc} of {host} answered with no valid token") from error
    value = token.token or token.access_token
    if not value or not value.isascii() or not value.isprintable():
        raise RegistryError(f"the token server {server.netloc} of {host} answered with no valid token")
    return Authorization(
        f"Bearer {value}", max(token.expires_in or 0, DEFAULT_LIFETIME), token.refresh_token or "" if offline else ""
    )


def _refused(answer: TokenAnswer, server: str, host: str, credential: Credential | None) -> RegistryError:
    if answer.status in (400, 401, 403):
        if credential is None:
            return Refused(
                f"{server} gives no anonymous access to {host} (status {answer.status})",
                remedy=f"log in: builder login {host}",
            )
        return Refused(
            f"{server} refuses the credentials for {host} (status {answer.status})",
            remedy=f"log in again: builder login {host}",
        )
    return RegistryError(f"the token server {server} of {host} answered with status {answer.status}")


def _basic(credential: Credential) -> str:
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()
