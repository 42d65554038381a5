"""The store and the inputs of a build, or of a question about one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import BinaryIO

from builder import config as configuration
from builder.api.inputs import Inputs, load_inputs, ssh_agents
from builder.api.options import BuildOptions
from builder.places import default_root
from builder.store.store import Store


@contextmanager
def opened_store(options: BuildOptions) -> Iterator[tuple[Store, str, Mapping[str, str]]]:
    """The store under a lease, a directory in it for temporary files, and the SSH agents by ID."""
    root = options.root or default_root(options.environ)
    with (
        closing(Store(root, lambda: configuration.load(options.environ).limits)) as store,
        store.lease(),
        store.scratch() as scratch,
        ssh_agents(options.agents) as agents,
    ):
        yield store, scratch, agents


def inputs_of(
    options: BuildOptions,
    store: Store,
    scratch: str,
    agents: Mapping[str, str],
    stdin: BinaryIO | None,
    *,
    keep_git_dir: bool = False,
) -> Inputs:
    """The inputs that the options name. Raises BuilderError."""
    return load_inputs(
        store,
        options.context,
        options.dockerfile,
        options.contexts,
        scratch,
        stdin,
        keep_git_dir=keep_git_dir,
        agent=agents.get("default", ""),
        offline=options.offline,
    )


@contextmanager
def opened(
    options: BuildOptions, stdin: BinaryIO | None, *, keep_git_dir: bool = False
) -> Iterator[tuple[Store, str, Mapping[str, str], Inputs]]:
    """The same with the inputs, for a question about a build, which runs and records nothing."""
    with opened_store(options) as (store, scratch, agents):
        yield store, scratch, agents, inputs_of(options, store, scratch, agents, stdin, keep_git_dir=keep_git_dir)
