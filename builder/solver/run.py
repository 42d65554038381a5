"""RUN: found in the cache, or left to `execute`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from builder.plan.steps import BindMount, CacheMount, FromContext, RunNode, StepNode
from builder.solver.cache import Made
from builder.solver.copy import MOUNTED, context_layer
from builder.solver.environment import Environment
from builder.solver.keys import Recipe, content_name, encode, key_of_encoded, run_recipe
from builder.solver.required import check_required
from builder.solver.roots import Layers
from builder.solver.trace import Trace

if TYPE_CHECKING:
    from builder.solver.mounted import MountedContent


def run(
    environment: Environment,
    node: RunNode,
    parent: Layers,
    roots: dict[int, Layers],
    trace: Trace,
    following: StepNode | None = None,
) -> Made:
    """Run a command on a parent's layers, or find its result in the cache. `following` as for `execute`. Raises
    StepFailed."""
    check_required(environment, node.mounts)
    contents = _context_layers(environment, node, trace)
    if environment.before is not None:
        from builder.solver.failed import StepState

        state = StepState(node=node, parent=parent, roots=roots, contents=contents, ran=False)
        environment.before(state, int(trace.step))
    for recipe in run_recipes(environment, node, parent, roots, trace.parts):
        encoded = encode(recipe)
        trace.key = key_of_encoded(encoded)
        found = None if node.ignore_cache else environment.cache.find(trace.key)
        if found is not None:
            return found
    mounted = _mounted(environment, node, parent, roots, trace)
    if mounted is not None:
        found = None if node.ignore_cache else mounted.known()
        if found is not None:
            return found
        found = mounted.find()
        if found is not None:
            mounted.note(found, encoded)
            return found
    from builder.solver.waiting import Waiting

    waiting = Waiting(environment, f"{node.label} waits for the same command, which runs already")
    with environment.cache.hold(trace.key, waiting):
        if not node.ignore_cache:  # another build may have made it meanwhile
            found = environment.cache.find(trace.key)
            if found is not None:
                return found
        trace.missed(encoded)
        from builder.solver.execute import execute

        made = execute(environment, _as_run(environment, node), parent, roots, contents, trace.step, following)
        environment.cache.remember_encoded(trace.key, encoded, made, trace.place)
        if mounted is not None:
            mounted.remember(made)
        return made


def _mounted(
    environment: Environment, node: RunNode, parent: Layers, roots: Mapping[int, Layers], trace: Trace
) -> MountedContent | None:
    """The command by the content of what it mounts of stages, if it does."""
    if not node.mounts:
        return None
    from builder.solver.mounted import MountedContent, mounted_stages

    if not any(mounted_stages(node)):
        return None
    return MountedContent(environment, node, roots, trace, partial(run_recipes, environment, node, parent, roots))


def run_recipes(
    environment: Environment, node: RunNode, parent: Layers, roots: Mapping[int, Layers], parts: Mapping[str, str]
) -> Iterator[Recipe]:
    """What a command's result is looked up by; the last is what it is kept by if it runs. `parts` are the keys of what
    mounts show of contexts.

    A result that was made with a network serves a build without one, whose results must not serve one that has it."""
    settings = _run_settings(environment)
    for candidate in dict.fromkeys((node, _as_run(environment, node))):
        yield run_recipe(candidate, parent, roots, parts, settings)


def _as_run(environment: Environment, node: RunNode) -> RunNode:
    """A command with the network that it gets."""
    return msgspec.structs.replace(node, network="none") if environment.isolated else node


def _run_settings(environment: Environment) -> Recipe:
    """What the build itself, and no instruction, adds to what its commands see."""
    limits = environment.limits
    return {
        "hosts": [list(pair) for pair in limits.hosts],
        "hostname": limits.hostname,
        "shm_size": limits.shm_size,
        "ulimits": [list(limit) for limit in limits.ulimits],
        "epoch": environment.epoch,
    }


def context_parts(node: RunNode) -> Iterator[tuple[str, FromContext, str]]:
    """What a command's mounts show of contexts: the `content_name`, the context, the path in it."""
    for mount in node.mounts:
        if isinstance(mount, (BindMount, CacheMount)) and isinstance(mount.tree, FromContext):
            yield content_name(mount.tree, mount.source), mount.tree, mount.source


def _context_layers(environment: Environment, node: RunNode, trace: Trace) -> dict[str, str]:
    """The layers that hold what mounts show of contexts, by `content_name`."""
    found = {}
    for name, tree, source in context_parts(node):
        part = trace.part(name)
        found[name] = context_layer(environment, tree.name, source, f"/{MOUNTED}", part).diff_id
        trace.parts[name] = part.key
    return found
