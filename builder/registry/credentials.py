"""Credentials for registries: from Docker's `config.json`, its credential helpers, and podman's `auth.json`.

Looked up as Docker's command line does: `$DOCKER_AUTH_CONFIG`, then `credHelpers` for the host, else `credsStore`, else
`auths`. What Docker knows nothing of is looked for where podman, buildah and skopeo log in (containers-auth.json(5)).
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import base64
import binascii
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from builder.errors import RegistryError
from builder.oci.spec import NOT_JSON
from builder.places import configuration_directory, docker_file
from builder.registry import helpers

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
AUTH_VARIABLE = "DOCKER_AUTH_CONFIG"
"""Holds `{"auths": …}` as config.json does, and counts before it."""
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


class Credential(msgspec.Struct, frozen=True):
    """What a registry is shown. An `identity_token` is exchanged for tokens, a `registry_token` is sent as it is."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, …)"  # never a secret in a log or a traceback


class Credentials(Protocol):
    """Knows credentials."""

    path: str
    """The file that people are told of."""

    def get(self, host: str, repository: str = "") -> Credential | None:
        """The credentials for a repository of a registry, `host[:port]`, or None. Raises RegistryError."""

    def trouble(self, host: str) -> str | None:
        """Why nothing is known of `host`, if something failed."""


class Auth(msgspec.Struct, frozen=True):
    """An entry of `auths`: `auth` is base64 of USER:PASSWORD."""

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class AuthFile(msgspec.Struct, frozen=True, rename="camel"):
    """What `config.json` and `auth.json` say of credentials."""

    auths: dict[str, Auth] | None = None
    creds_store: str = ""
    cred_helpers: dict[str, str] | None = None

    def helper(self, host: str) -> str:
        """The name of the helper that keeps the host's credentials, '' if the file does."""
        known = self.cred_helpers or {}
        return next((known[key] for key in keys_of(host) if key in known), self.creds_store)

    def entries(self, host: str, repository: str = "", *, of_docker: bool = True) -> Iterator[str]:
        """The keys of `auths` that are about a repository of a host, the best first: those that name the most of its
        path, as `podman login` writes them, then the host's own. In a file `of_docker` any other part of the host is as
        good as the host, since Docker reads no paths."""
        for key in [*_namespaces(host, repository), *keys_of(host)]:
            for stored in self.auths or ():
                if key in (stored, _place_of(stored)):
                    yield stored
        for stored in self.auths or () if of_docker else ():
            if host_of(stored) in keys_of(host) and _place_of(stored) != host_of(stored):
                yield stored


class CredentialStore:
    """Reads the files when first asked. Thread-safe.

    A helper that is missing or fails counts as "no credentials", since most pulls need none; `trouble(host)` then says
    what went wrong, for the error of a registry that refuses.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.path = docker_file(environ)
        self._files: list[tuple[str, AuthFile]] | None = None
        self._known: dict[tuple[str, str], Credential | None] = {}
        self._helped: dict[tuple[str, str], Credential | None] = {}
        self._trouble: dict[str, str] = {}
        self._lock = threading.Lock()

    def get(self, host: str, repository: str = "") -> Credential | None:
        """The credentials for a repository of a registry, `host[:port]`, or None. Raises RegistryError for a malformed
        file."""
        with self._lock:
            if (host, repository) not in self._known:
                self._known[host, repository] = self._look_up(host, repository)
            return self._known[host, repository]

    def trouble(self, host: str) -> str | None:
        """Why a credential helper gave nothing for `host`, if it failed."""
        return self._trouble.get(host)

    def place(self, host: str) -> str | None:
        """Which file (or variable) knows a host, None if none does."""
        with self._lock:
            return next((place for place, file in self._read() if self._from(place, file, host, "")), None)

    def _look_up(self, host: str, repository: str) -> Credential | None:
        found = (self._from(place, file, host, repository) for place, file in self._read())
        return next((credential for credential in found if credential), None)

    def _read(self) -> list[tuple[str, AuthFile]]:
        if self._files is None:
            self._files = []
            if text := self._environ.get(AUTH_VARIABLE):
                self._files.append((AUTH_VARIABLE, decode_file(text.encode(), AUTH_VARIABLE)))
            for path in (*([self.path] if self.path else ()), *_podman_paths(self._environ)):
                data = read_file(path)
                if data is not None:
                    self._files.append((path, decode_file(data, path)))
        return self._files

    def _from(self, place: str, file: AuthFile, host: str, repository: str) -> Credential | None:
        helper = file.helper(host)
        if helper:
            if (helper, host) not in self._helped:
                self._helped[helper, host] = self._ask_helper(helper, host, place)
            if found := self._helped[helper, host]:
                return found
        for key in file.entries(host, repository, of_docker=place in (AUTH_VARIABLE, self.path)):
            credential = _decoded(key, (file.auths or {})[key], place)
            if credential:
                return credential
        return None

    def _ask_helper(self, helper: str, host: str, place: str) -> Credential | None:
        try:
            answer = helpers.get(helper, key_of(host), self._environ)
        except helpers.HelperError as error:
            self._trouble[host] = f"{error} (it is named in {place})"
            return None
        if answer is None:
            return None
        if answer.username == helpers.TOKEN_USER:
            return Credential(identity_token=answer.secret)
        return Credential(answer.username, answer.secret)


def key_of(host: str) -> str:
    """Under which name a registry's credentials are kept: its host, but for Docker Hub a URL of its first API."""
    return DOCKER_HUB_KEY if host in _DOCKER_HUB else host


def keys_of(host: str) -> list[str]:
    """All names under which a registry's credentials may be found."""
    return [DOCKER_HUB_KEY, "docker.io", *sorted(_DOCKER_HUB - {"docker.io"})] if host in _DOCKER_HUB else [host]


def _place_of(stored: str) -> str:
    """What a key of `auths` is about: a host, of which Docker writes URLs, too, or a part of a host's repositories."""
    host = host_of(stored)
    path = stored.removeprefix(host).strip("/")
    return f"{host}/{path}" if stored.startswith(host) and path not in ("", "v1", "v2") else host


def _namespaces(host: str, repository: str) -> Iterator[str]:
    """The names of a repository and of all that it is in, the longest first: `quay.io/team/app`, `quay.io/team`."""
    name = "docker.io" if host in _DOCKER_HUB else host
    while repository:
        yield f"{name}/{repository}"
        repository = repository.rpartition("/")[0]


def host_of(server: str) -> str:
    """The host of a server as people and files write it, perhaps as a URL: `https://ghcr.io/v1/` → `ghcr.io`."""
    return server.removeprefix("https://").removeprefix("http://").partition("/")[0]


def read_file(path: str) -> bytes | None:
    """A file's content, None if it is not there. Raises RegistryError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RegistryError(f"the credentials cannot be read: {error.strerror}", place=path) from error


def decode_file(data: bytes, place: str) -> AuthFile:
    """Raises RegistryError for what is no such file; an empty one knows nothing."""
    try:
        return msgspec.json.decode(data, type=AuthFile) if data.strip() else AuthFile()
    except NOT_JSON as error:
        raise RegistryError(
            f"the credentials are not valid: {error}", place=place, remedy="mend or remove it"
        ) from error


def _decoded(key: str, auth: Auth, place: str) -> Credential | None:
    username, password = auth.username, auth.password
    if auth.auth:
        try:
            decoded = base64.b64decode(auth.auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            decoded = ""
        if ":" not in decoded:
            raise RegistryError(
                f"the entry for {key!r} is not base64 of USER:PASSWORD", place=place, remedy="log in again"
            )
        username, _, password = decoded.rstrip("\0").partition(":")
    if auth.registrytoken or auth.identitytoken or username or password:
        return Credential(username, password, auth.identitytoken, auth.registrytoken)
    return None


def _podman_paths(environ: Mapping[str, str]) -> Iterator[str]:
    if given := environ.get("REGISTRY_AUTH_FILE"):
        yield given
        return
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(runtime, "containers", "auth.json")
    if config := configuration_directory(environ):
        yield os.path.join(config, "containers", "auth.json")
