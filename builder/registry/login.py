"""Logging in to registries and out: credentials are tried, then kept as Docker's command line keeps them.

They go to the credential helper that `config.json` names for the host (`credHelpers`, else `credsStore`), or else into
the file itself, in base64. The file is replaced in one rename, with mode 0600 and all its other settings.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from builder.config import Config
from builder.errors import RegistryError
from builder.places import docker_file
from builder.progress import Reporter, ignore
from builder.registry import helpers
from builder.registry.clients import Patience
from builder.registry.credentials import Credential, decode_file, host_of, key_of, read_file
from builder.registry.failures import said
from builder.registry.transport import Session


class Kept(msgspec.Struct, frozen=True):
    """Where credentials are kept: a `helper`, or else the file `path`."""

    path: str
    helper: str = ""


class _Trial:
    """The credentials that are being tried, whatever the files say."""

    def __init__(self, credential: Credential, path: str) -> None:
        self._credential = credential
        self.path = path

    def get(self, host: str, repository: str = "") -> Credential | None:
        return self._credential

    def trouble(self, host: str) -> str | None:
        return None


def server_of(text: str) -> str:
    """The registry that a person names: `https://index.docker.io/v1/` → `docker.io`, `https://ghcr.io/` → `ghcr.io`."""
    host = host_of(text)
    return "docker.io" if key_of(host) != host else host


def verify(
    config: Config,
    environ: Mapping[str, str],
    host: str,
    credential: Credential,
    *,
    reporter: Reporter = ignore,
    patience: Patience | None = None,
) -> Credential:
    """Show the registry `host` the credentials; returns what is worth keeping: them, or an identity token that the
    registry gave for them. Raises RegistryError when it refuses them, or is none."""
    trial = _Trial(credential, docker_file(environ))
    with Session(config, environ, credentials=trial, reporter=reporter, patience=patience, offline=True) as session:
        endpoint = session.endpoints(host, push=True)[0]
        reply = session.request(endpoint, "GET", f"{endpoint.origin}/v2/", scopes=())
        if reply.status in (401, 403):
            raise RegistryError(
                f"{endpoint.host} refuses the user name or the password",
                remedy="check both; some registries want an access token instead of the password",
                details=said(reply.body, endpoint.host),
            )
        if reply.status != 200:
            raise RegistryError(
                f"{endpoint.host} answered {reply.status} where a registry says that it is one",
                remedy="check the registry's name and port",
            )
        token = session.identity_token(endpoint)
    return Credential(username=credential.username, identity_token=token) if token else credential


def save(environ: Mapping[str, str], host: str, credential: Credential) -> Kept:
    """Keep credentials. Raises RegistryError."""
    path = docker_file(environ)
    if not path:
        raise RegistryError("it is not known where credentials are kept", remedy="set HOME, or DOCKER_CONFIG")
    key = key_of(host)
    with _changing(path) as document:
        helper = _helper(document, path, host)
        if helper:
            secret = credential.identity_token or credential.password
            username = helpers.TOKEN_USER if credential.identity_token else credential.username
            helpers.store(helper, key, helpers.HelperAnswer(username, secret), environ)
            _auths(document)[key] = {}  # what Docker writes, so that `docker logout` and others know of it
        else:
            _auths(document)[key] = _entry(credential)
    return Kept(path, helper)


def forget(environ: Mapping[str, str], host: str) -> None:
    """Forget a registry's credentials, under all names that it may be kept by. Raises RegistryError."""
    path = docker_file(environ)
    if read_file(path) is None:
        return
    with _changing(path) as document:
        helper = _helper(document, path, host)
        if helper:
            helpers.erase(helper, key_of(host), environ)
        for key in list(decode_file(json.dumps(document).encode(), path).entries(host)):
            _auths(document).pop(key, None)


def _entry(credential: Credential) -> dict[str, str]:
    if credential.identity_token:
        user = base64.b64encode(f"{credential.username}:".encode()).decode()
        return {"auth": user, "identitytoken": credential.identity_token}
    return {"auth": base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()}


def _helper(document: dict[str, Any], path: str, host: str) -> str:
    return decode_file(json.dumps(document).encode(), path).helper(host)


def _auths(document: dict[str, Any]) -> dict[str, Any]:
    if not document.get("auths"):
        document["auths"] = {}
    found: dict[str, Any] = document["auths"]
    return found


@contextmanager
def _changing(path: str) -> Iterator[dict[str, Any]]:
    """Change the file: the document given is written back, unless the block raises. Others of ours wait meanwhile."""
    target = os.path.realpath(path)  # a link, as people who keep their settings in git have it, stays one
    try:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RegistryError(f"cannot be made: {error.strerror}", place=os.path.dirname(target)) from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        data = read_file(target)
        document = _parse(data, path)
        yield document
        text = json.dumps(document, indent="\t", ensure_ascii=False).encode()
        if data is None or document != _parse(data, path):
            _replace(target, text, directory)
    except OSError as error:
        raise RegistryError(f"the credentials cannot be written: {error.strerror}", place=path) from error
    finally:
        os.close(directory)


def _parse(data: bytes | None, path: str) -> dict[str, Any]:
    if data is None or not data.strip():
        return {}
    decode_file(data, path)  # raises for what we would not read again
    document: dict[str, Any] = json.loads(data)
    return document


def _replace(path: str, data: bytes, directory: int) -> None:
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            with suppress(OSError):  # with sudo, the file stays the user's
                before = os.stat(path)
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
        os.rename(temporary, path)
        os.fsync(directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
