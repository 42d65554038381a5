"""The store, the credentials and the inputs of a build, or of a question about one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder import config as configuration
from builder.api.inputs import Inputs, load_inputs
from builder.api.options import BuildOptions, SecretSource
from builder.api.special import given_epoch
from builder.errors import StepFailed
from builder.places import default_root
from builder.progress import Reporter
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.solver.secrets import Guard


class Credentials(msgspec.Struct, frozen=True):
    """What a build is trusted with: what reads each of its secrets, and the sockets of its SSH agents, by their IDs."""

    secrets: Mapping[str, Callable[[], bytes]] = {}
    agents: Mapping[str, str] = {}


@contextmanager
def opened_store(options: BuildOptions) -> Iterator[tuple[Store, str, Credentials]]:
    """The store under a lease, a directory in it for temporary files, and the credentials."""
    root = options.root or default_root(options.environ)
    with (
        closing(Store(root, configuration.limits_of(options.environ))) as store,
        store.lease(),
        store.scratch() as scratch,
        ssh_agents(options.agents) as agents,
    ):
        yield store, scratch, Credentials(secret_readers(options), agents)


@contextmanager
def trimming(store: Store, options: BuildOptions, report: Reporter) -> Iterator[None]:
    """Keep the build cache within the policy of the settings, after a build in the block that went well and wrote
    layers: under its lease, and with its record, so that all that it used is known to be used."""
    yield
    if store.grew:
        from builder.api.trimming import trim_cache

        trim_cache(store, options.environ, report)


def inputs_of(
    options: BuildOptions,
    store: Store,
    scratch: str,
    credentials: Credentials,
    stdin: BinaryIO | None,
    *,
    keep_git_dir: bool = False,
) -> Inputs:
    """The inputs that the options name. Raises BuilderError, without the value of a secret in it."""
    with redacting(options, credentials):  # a server may have written back what it was sent
        return load_inputs(
            store,
            options.context,
            options.dockerfile,
            options.contexts,
            scratch,
            stdin,
            keep_git_dir=keep_git_dir,
            commit_times=bool(given_epoch(options)),  # BuildKit: dockerui/context.go
            secrets=credentials.secrets,
            agent=credentials.agents.get("default", ""),
            offline=options.offline,
            environ=options.environ,
            rego=options.rego,
        )


@contextmanager
def redacting(options: BuildOptions, credentials: Credentials) -> Iterator[None]:
    """Masks the build's secrets in an error that ends the block."""
    try:
        yield
    except Exception as error:
        guard = guard_of(options, credentials)
        if guard is not None:
            guard.redact(error)
        raise


def guard_of(options: BuildOptions, credentials: Credentials) -> Guard | None:
    """What keeps the build's secrets to itself: None for a build that has none."""
    sources = {f"secret {name!r}": read for name, read in credentials.secrets.items()}
    for name, paths in options.agents.items():
        for path in filter(os.path.isfile, paths):
            sources[f"the SSH key {path}"] = secret_reader(name, SecretSource(path=path), {})
    if not sources:
        return None
    from builder.solver.secrets import Guard

    return Guard(sources, lambda: configuration.load(options.environ).secrets.printed == "mask")


@contextmanager
def opened(
    options: BuildOptions, stdin: BinaryIO | None, *, keep_git_dir: bool = False
) -> Iterator[tuple[Store, str, Credentials, Inputs]]:
    """The same with the inputs, for a question about a build, which runs and records nothing."""
    with opened_store(options) as (store, scratch, credentials):
        inputs = inputs_of(options, store, scratch, credentials, stdin, keep_git_dir=keep_git_dir)
        yield store, scratch, credentials, inputs


@contextmanager
def ssh_agents(given: Mapping[str, tuple[str, ...]]) -> Iterator[Mapping[str, str]]:
    """The sockets of a build's SSH agents by ID; those that serve keys from files end with the context.

    Raises StepFailed for what is neither a socket nor a key."""
    if not given:
        yield {}
        return
    from builder.solver.ssh_keys import open_agents

    with open_agents(given) as sockets:
        yield sockets


def secret_readers(options: BuildOptions) -> dict[str, Callable[[], bytes]]:
    """What reads each secret of a build."""
    return {name: secret_reader(name, source, options.environ) for name, source in options.secrets.items()}


def secret_reader(name: str, source: SecretSource, environ: Mapping[str, str]) -> Callable[[], bytes]:
    """What reads a secret when it is needed, and then may raise StepFailed."""

    @cache  # what comes through a pipe can be read but once
    def read() -> bytes:
        if source.value is not None:
            return source.value
        if source.variable:
            if source.variable not in environ:
                raise StepFailed(
                    f"secret {name!r}: the variable {source.variable} is not set", remedy="export it, or give a file"
                )
            return environ[source.variable].encode("utf-8", "surrogateescape")
        try:
            with open(source.path, "rb") as file:
                return file.read()
        except OSError as error:
            raise StepFailed(
                f"secret {name!r} cannot be read: {error.strerror}",
                place=source.path,
                remedy=f"give the path of a file: --secret id={name},src=PATH",
            ) from error

    return read
