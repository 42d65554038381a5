"""Credentials for registries, from Docker's `config.json` and its credential helpers.

Looked up as Docker's command line does: `credHelpers` for the host, else `credsStore`, else `auths`. A helper is the
program `docker-credential-NAME`: `get` reads the server's name from standard input and answers with JSON.
"""

from __future__ import annotations

import base64
import binascii
import os
import threading
from collections.abc import Mapping

import msgspec

from builder.errors import RegistryError

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER_TIMEOUT = 30.0  # seconds; a helper may ask the user's keychain or a cloud's token service


class Credential(msgspec.Struct, frozen=True):
    """What a registry is shown. An `identity_token` is exchanged for tokens, a `registry_token` is sent as it is."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, …)"  # never a secret in a log or a traceback


class _Auth(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _File(msgspec.Struct, frozen=True, rename="camel"):
    auths: dict[str, _Auth] = msgspec.field(default_factory=dict)
    creds_store: str = ""
    cred_helpers: dict[str, str] = msgspec.field(default_factory=dict)


class _HelperAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    username: str = ""
    secret: str = ""


class CredentialStore:
    """Reads `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`, when first asked. Thread-safe.

    A helper that is missing or fails counts as "no credentials", since most pulls need none; `trouble(host)` then says
    what went wrong, for the error of a registry that refuses.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        directory = environ.get("DOCKER_CONFIG") or os.path.join(
            environ.get("HOME") or os.path.expanduser("~"), ".docker"
        )
        self.path = os.path.join(directory, "config.json")
        self._file: _File | None = None
        self._known: dict[str, Credential | None] = {}
        self._trouble: dict[str, str] = {}
        self._lock = threading.Lock()

    def get(self, host: str) -> Credential | None:
        """The credentials for a registry's `host[:port]`, or None. Raises RegistryError for a malformed file."""
        with self._lock:
            if host not in self._known:
                self._known[host] = self._look_up(host)
            return self._known[host]

    def trouble(self, host: str) -> str | None:
        """Why a credential helper gave nothing for `host`, if it failed."""
        return self._trouble.get(host)

    def _look_up(self, host: str) -> Credential | None:
        if self._file is None:
            self._file = self._read()
        file = self._file
        keys = [DOCKER_HUB_KEY, "docker.io", *sorted(_DOCKER_HUB)] if host in _DOCKER_HUB else [host]
        helper = next((file.cred_helpers[key] for key in keys if key in file.cred_helpers), file.creds_store)
        if helper:
            found = self._ask_helper(helper, keys[0], host)
            if found:
                return found
        for key in keys:
            for stored, auth in file.auths.items():
                if stored == key or _host_of(stored) == key:
                    found = self._from_file(stored, auth)
                    if found:
                        return found
        return None

    def _read(self) -> _File:
        try:
            with open(self.path, "rb") as file:
                return msgspec.json.decode(file.read(), type=_File)
        except (FileNotFoundError, NotADirectoryError):
            return _File()
        except OSError as error:
            raise RegistryError(f"the credentials cannot be read: {error.strerror}", place=self.path) from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RegistryError(
                f"the credentials are not valid: {error}", place=self.path, remedy="mend or remove the file"
            ) from error

    def _from_file(self, key: str, auth: _Auth) -> Credential | None:
        username, password = auth.username, auth.password
        if auth.auth:
            try:
                decoded = base64.b64decode(auth.auth, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                decoded = ""
            if ":" not in decoded:
                raise RegistryError(
                    f"the entry for {key!r} is not base64 of USER:PASSWORD", place=self.path, remedy="log in again"
                )
            username, _, password = decoded.rstrip("\0").partition(":")
        if auth.registrytoken or auth.identitytoken or username or password:
            return Credential(username, password, auth.identitytoken, auth.registrytoken)
        return None

    def _ask_helper(self, helper: str, key: str, host: str) -> Credential | None:
        import subprocess

        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, "get"],
                input=key.encode(),
                capture_output=True,
                timeout=_HELPER_TIMEOUT,
                env=dict(self._environ),
                check=False,
            )
        except FileNotFoundError:
            self._trouble[host] = f"the credential helper {program}, named in {self.path}, is not installed"
            return None
        except (OSError, subprocess.TimeoutExpired) as error:
            self._trouble[host] = f"the credential helper {program} failed: {error}"
            return None
        if done.returncode != 0:
            # Helpers print their errors to standard output, in these words when they just know nothing.
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            if "credentials not found" not in said:
                self._trouble[host] = f"the credential helper {program} failed: {said or done.returncode}"
            return None
        try:
            answer = msgspec.json.decode(done.stdout, type=_HelperAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._trouble[host] = f"the credential helper {program} answered with something that is not JSON"
            return None
        if answer.username == "<token>":  # the helpers' protocol for identity tokens
            return Credential(identity_token=answer.secret)
        return Credential(answer.username, answer.secret) if answer.secret else None


def _host_of(key: str) -> str:
    """The host of a key in `auths`, which may be a URL: `https://ghcr.io/v1/` → `ghcr.io`."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]
