"""The configuration file `builder.toml`: which registries to ask and how, what archives may hold, what becomes of steps
that print secrets, how much of the build cache is kept.

    [registry."docker.io"]
    mirrors = ["127.0.0.1:5050", "mirror.example.com/proxy"]

    [registry."registry.example.com"]
    http = false                              # plain HTTP; unset: only for loopback registries without TLS material
    insecure = false                          # HTTPS without verifying the certificate
    ca = ["example-ca.pem"]                   # added to the system's authorities
    keypair = [{ key = "client.key", cert = "client.pem" }]
    tlsconfigdir = ["/etc/example/certs"]     # *.crt are authorities, NAME.cert with NAME.key client certificates

    [limits]                                  # of each archive and layer that is read; 0 is no limit
    entries = 2_000_000
    size = 1_099_511_627_776                  # bytes, uncompressed
    ratio = 1_100                             # uncompressed bytes for a compressed one, once there are many
    load_entries = 100_000                    # of an archive of images, as `load` reads it, beside those of its layers

    [secrets]
    printed = "fail"                          # a step that prints one; "mask": its log is masked, and it may go on

    [gc]                                      # at the end of builds that write layers, as 'prune --cache' with these
    max-used-space = "20g"
    reserved-space = "2g"
    min-free-space = "10g"
    keep-duration = "48h"                     # what was used since stays

The registries' tables have the form of BuildKit's `buildkitd.toml`. Relative paths are relative to the file's
directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import msgspec

from builder.errors import BuilderError
from builder.places import configuration_directory, configuration_files

_LOOPBACK = r"(?:localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(?::\d+)?"


class ConfigError(BuilderError):
    """The configuration file is missing, unreadable or wrong; `place` is its path."""


class KeyPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Paths of a client certificate and its key, PEM."""

    key: str
    cert: str


class RegistryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one registry (`host` or `host:port`) is asked. `None` means that the file does not say."""

    mirrors: tuple[str, ...] = ()
    http: bool | None = None
    insecure: bool | None = None
    ca: tuple[str, ...] = ()
    keypair: tuple[KeyPair, ...] = ()
    tlsconfigdir: tuple[str, ...] = ()


_Limit = Annotated[int, msgspec.Meta(ge=0)]


class ArchiveLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one archive or layer may hold before it is taken for hostile; 0 stands for no limit.

    `entries` counts headers, `size` uncompressed bytes. `ratio` bounds what a compressed byte becomes on average, and
    counts from GRACE uncompressed bytes on: no gzip stream exceeds 1032, but bombs of the other formats do by far.
    `load_entries` counts the headers of an archive of images: it has a few for each layer, and of each of its files the
    name is kept in memory and the content in a file of its own until all are known.
    """

    GRACE: ClassVar[int] = 1 << 30

    entries: _Limit = 2_000_000
    size: _Limit = 1 << 40
    ratio: _Limit = 1_100
    load_entries: _Limit = 100_000

    @staticmethod
    def remedy(setting: str) -> str:
        """What to do when a limit is too low."""
        return f"if you trust it, raise {setting} below [limits] in builder.toml (0: no limit)"


class SecretSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of a step that prints a secret: it fails, or goes on, and there is a warning. Its output is masked
    in any case."""

    printed: Literal["fail", "mask"] = "fail"


class CachePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """How much of the build cache is kept, in bytes, as the options of `prune` that have these names; 0 is not said.
    What was used less than `keep_duration` ago, in seconds, stays. Texts are as in BuildKit, but for shares of a
    disk."""

    SIZE: ClassVar[str] = r"(?i)[0-9]{1,15}b?|[0-9]{1,6}(\.[0-9]{1,6})? ?[kmgt](i?b)?"
    DURATION: ClassVar[str] = r"(?=.)([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?"

    max_used_space: _Limit | str = 0
    reserved_space: _Limit | str = 0
    min_free_space: _Limit | str = 0
    keep_duration: _Limit | str = 0

    def __post_init__(self) -> None:
        """Refuse texts of another form. (A pattern in their types would be compiled by each build.)"""
        for size in (self.max_used_space, self.reserved_space, self.min_free_space):
            if isinstance(size, str) and not re.fullmatch(self.SIZE, size):
                raise ValueError(f"{size!r} is not a size")
        if isinstance(self.keep_duration, str) and not re.fullmatch(self.DURATION, self.keep_duration):
            raise ValueError(f"{self.keep_duration!r} is not a duration")


class Config(msgspec.Struct, frozen=True):
    """All settings. `certificate_directories` hold a directory `HOST[:PORT]` for each registry (Docker's `certs.d`)."""

    registries: dict[str, RegistryConfig] = msgspec.field(default_factory=dict)
    certificate_directories: tuple[str, ...] = ()
    limits: ArchiveLimits = ArchiveLimits()
    secrets: SecretSettings = SecretSettings()
    gc: CachePolicy | None = None

    def registry(self, host: str) -> RegistryConfig:
        """The settings of a registry; the defaults where the file has no table for it."""
        return self.registries.get(host) or RegistryConfig()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    registry: dict[str, RegistryConfig] = msgspec.field(default_factory=dict)
    limits: ArchiveLimits | None = None
    secrets: SecretSettings | None = None
    gc: CachePolicy | None = None


def limits_of(environ: Mapping[str, str]) -> Callable[[], ArchiveLimits]:
    """What reads the limits of the settings, which a store asks for when it first needs them; that may raise
    ConfigError."""
    return lambda: load(environ).limits


def load(environ: Mapping[str, str]) -> Config:
    """Read the file that `$BUILDER_CONFIG` names, else the system's file and then the user's, where they exist.

    A table in the user's file replaces the system's table of the same name. Raises ConfigError.
    """
    user = configuration_directory(environ)
    registries: dict[str, RegistryConfig] = {}
    limits, secrets, gc = ArchiveLimits(), SecretSettings(), None
    named = bool(environ.get("BUILDER_CONFIG"))
    for file in [_read(path, required=named) for path in configuration_files(environ)]:
        registries |= file.registry
        limits = file.limits or limits
        secrets = file.secrets or secrets
        gc = file.gc or gc
    directories = tuple(
        os.path.join(base, program, "certs.d")
        for base in ("/etc", *((user,) if user else ()))
        for program in ("docker", "containers")
    )
    return Config(registries, directories, limits, secrets, gc)


def cache_policy(environ: Mapping[str, str]) -> CachePolicy | None:
    """How much of the build cache is kept, if the settings say so. Where no file names the table, none is decoded: that
    takes some milliseconds. Raises ConfigError."""
    named = bool(environ.get("BUILDER_CONFIG"))
    if not any(b"gc" in _content(path, required=named) for path in configuration_files(environ)):
        return None
    return load(environ).gc


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine: `localhost`, `127.0.0.0/8` or `[::1]`, by its text alone."""
    return re.fullmatch(_LOOPBACK, host) is not None


def _content(path: str, *, required: bool) -> bytes:
    """The bytes of a file; none if it is not there and need not be."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        if not required:
            return b""
        raise ConfigError(
            "the configuration file does not exist", place=path, remedy="create it, or unset BUILDER_CONFIG"
        ) from None
    except OSError as error:
        raise ConfigError(f"the configuration file cannot be read: {error.strerror}", place=path) from error


def _read(path: str, *, required: bool) -> _File:
    data = _content(path, required=required)
    if not data:
        return _File()
    import tomllib  # only when there is a file: a cached rebuild without one is quicker

    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}", place=path) from error
    try:
        found = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"wrong setting: {error}",
            place=path,
            remedy='a registry\'s table is [registry."HOST"] with mirrors, http, insecure, ca, keypair, tlsconfigdir;'
            " [limits] has entries, size, ratio and load_entries, whole numbers; [secrets] has printed, fail or mask;"
            ' [gc] has max-used-space, reserved-space and min-free-space, as "20g", and keep-duration, as "48h"',
        ) from error
    base = os.path.dirname(os.path.abspath(path))
    registries = {host: _absolute(registry, base) for host, registry in found.registry.items()}
    return _File(registries, found.limits, found.secrets, found.gc)


def _absolute(registry: RegistryConfig, base: str) -> RegistryConfig:
    return msgspec.structs.replace(
        registry,
        ca=tuple(os.path.join(base, path) for path in registry.ca),
        keypair=tuple(KeyPair(os.path.join(base, p.key), os.path.join(base, p.cert)) for p in registry.keypair),
        tlsconfigdir=tuple(os.path.join(base, path) for path in registry.tlsconfigdir),
    )
