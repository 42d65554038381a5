"""Where a registry's images are asked for: its mirrors, then itself; by HTTP or HTTPS; with which certificates.

Plain HTTP is used where `http = true` says so, and for a loopback registry whose configuration does not say `http`
and holds no TLS material (`insecure`, `ca`, `keypair`, a `certs.d` directory) and whose port is not 443. All else is
HTTPS; there is no silent fall-back from one to the other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from builder.authorities import system_context
from builder.config import Config, KeyPair, RegistryConfig, is_loopback
from builder.errors import RegistryError
from builder.registry.urls import split

if TYPE_CHECKING:
    import ssl

DOCKER_HUB = "docker.io"
DOCKER_HUB_HOST = "registry-1.docker.io"


class Endpoint(msgspec.Struct, frozen=True):
    """One server that serves a registry's repositories, below `scheme://host/v2/prefix`.

    `settings` names the table of the configuration that holds its TLS material; `namespace` is the registry that a
    mirror stands in for.
    """

    scheme: str
    host: str
    settings: str
    prefix: str = ""
    namespace: str = ""

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def is_mirror(self) -> bool:
        return bool(self.namespace)

    def repository(self, path: str) -> str:
        """A repository's name on this server, as in URLs and scopes."""
        return self.prefix + path

    def url(self, repository: str, rest: str) -> str:
        """`https://host/v2/REPOSITORY/manifests/latest`; a mirror is told the registry in `ns`, as by containerd."""
        url = f"{self.origin}/v2/{self.repository(repository)}/{rest}"
        return f"{url}{'&' if '?' in rest else '?'}ns={self.namespace}" if self.namespace else url

    def __str__(self) -> str:
        return f"{self.origin} (mirror of {self.namespace})" if self.namespace else self.origin


class TLSFiles(msgspec.Struct, frozen=True):
    """Certificates for one registry: authorities beside the system's, and what the client shows."""

    ca: tuple[str, ...] = ()
    keypairs: tuple[KeyPair, ...] = ()


def endpoints(config: Config, domain: str, *, push: bool = False) -> tuple[Endpoint, ...]:
    """The servers to ask for images of `domain`, in order. Mirrors serve pulls only."""
    found = [] if push else [_mirror(config, text, domain) for text in config.registry(domain).mirrors]
    host = DOCKER_HUB_HOST if domain == DOCKER_HUB else domain
    return (*found, Endpoint(_scheme(config, domain, host), host, domain))


def tls_files(config: Config, endpoint: Endpoint) -> TLSFiles:
    """The certificates for an endpoint, from its table, its `tlsconfigdir` and the `certs.d` directories.

    In a directory `*.crt` are authorities and `NAME.cert` with `NAME.key` a client's certificate (Docker's rule).
    """
    registry = config.registry(endpoint.settings)
    ca, keypairs = list(registry.ca), list(registry.keypair)
    for directory in (*registry.tlsconfigdir, *certificate_directories(config, endpoint.settings)):
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        ca += [os.path.join(directory, name) for name in names if name.endswith(".crt")]
        for name in names:
            if name.endswith(".cert"):
                key = os.path.join(directory, name.removesuffix(".cert") + ".key")
                keypairs.append(KeyPair(key, os.path.join(directory, name)))
    return TLSFiles(tuple(ca), tuple(keypairs))


def tls_context(config: Config, endpoint: Endpoint) -> ssl.SSLContext:
    """The TLS settings for an endpoint. Raises RegistryError for a certificate that cannot be read."""
    import ssl

    context = system_context()
    files = tls_files(config, endpoint)
    for path in files.ca:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(f"the CA certificate cannot be read: {error.strerror or error}", place=path) from error
    for pair in files.keypairs:
        try:
            context.load_cert_chain(pair.cert, pair.key)
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(
                f"the client certificate with key {pair.key} cannot be read: {error.strerror or error}", place=pair.cert
            ) from error
    if config.registry(endpoint.settings).insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _mirror(config: Config, text: str, domain: str) -> Endpoint:
    """A mirror is `host[:port][/path]`, a scheme before it is taken at its word (BuildKit's form)."""
    parts = split(text if "://" in text else f"//{text}")
    if not parts.netloc or parts.scheme not in ("", "http", "https") or "@" in parts.netloc:
        raise RegistryError(f"{text!r} is not a mirror of {domain}", remedy="write HOST[:PORT][/PATH]")
    prefix = parts.path.strip("/")
    scheme = parts.scheme or _scheme(config, parts.netloc, parts.netloc)
    return Endpoint(scheme, parts.netloc, parts.netloc, f"{prefix}/" if prefix else "", domain)


def _scheme(config: Config, settings: str, host: str) -> str:
    registry = config.registry(settings)
    if registry.http is not None:
        return "http" if registry.http else "https"
    plain = is_loopback(host) and not host.endswith(":443") and not _has_tls(config, settings, registry)
    return "http" if plain else "https"


def _has_tls(config: Config, settings: str, registry: RegistryConfig) -> bool:
    given = registry.insecure or registry.ca or registry.keypair or registry.tlsconfigdir
    return bool(given) or any(os.path.isdir(directory) for directory in certificate_directories(config, settings))


def certificate_directories(config: Config, settings: str) -> list[str]:
    """Where a registry's certificates may lie, `settings` being its name (Docker's `certs.d/HOST`)."""
    return [os.path.join(directory, settings) for directory in config.certificate_directories]
