"""The store and the inputs of a question about a build, which runs and records nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import BinaryIO

from builder import config as configuration
from builder.api.inputs import Inputs, load_inputs, ssh_agents
from builder.api.options import BuildOptions
from builder.store.store import Store


@contextmanager
def opened(
    options: BuildOptions, stdin: BinaryIO | None, *, keep_git_dir: bool = False
) -> Iterator[tuple[Store, str, Mapping[str, str], Inputs]]:
    """The store under a lease, a directory in it for temporary files, the SSH agents by ID, and the inputs."""
    root = options.root or configuration.default_root(options.environ)
    with (
        closing(Store(root, lambda: configuration.load(options.environ).limits)) as store,
        store.lease(),
        store.scratch() as scratch,
        ssh_agents(options.agents) as agents,
    ):
        inputs = load_inputs(
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
        yield store, scratch, agents, inputs
