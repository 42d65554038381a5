"""RUN: found in the cache, or left to `execute`."""

from __future__ import annotations

from builder.plan.steps import BindMount, CacheMount, FromContext, RunNode
from builder.solver.cache import Made
from builder.solver.copy import MOUNTED, context_layer
from builder.solver.environment import Environment
from builder.solver.keys import Recipe, content_name, run_recipe
from builder.solver.required import check_required
from builder.solver.roots import Layers


def run(
    environment: Environment, node: RunNode, parent: Layers, roots: dict[int, Layers], lineage: str, step: str
) -> Made:
    """Run a command on a parent's layers, or find its result in the cache. Raises StepFailed."""
    check_required(environment, node.mounts)
    contents = _context_layers(environment, node, lineage)
    recipe = run_recipe(node, parent, roots, contents, _settings(environment))
    if not node.ignore_cache:
        found = environment.cache.look_up(recipe)
        if found is not None:
            return found
    with environment.cache.alone(recipe):
        if not node.ignore_cache:  # another build may have made it meanwhile
            found = environment.cache.look_up(recipe)
            if found is not None:
                return found
        from builder.solver.execute import execute

        made = execute(environment, node, parent, roots, contents, step)
        environment.cache.remember(recipe, made, lineage)
        return made


def _settings(environment: Environment) -> Recipe:
    limits = environment.limits
    return {
        "hosts": [list(pair) for pair in limits.hosts],
        "hostname": limits.hostname,
        "shm_size": limits.shm_size,
        "ulimits": [list(limit) for limit in limits.ulimits],
        "epoch": environment.epoch,
    }


def _context_layers(environment: Environment, node: RunNode, lineage: str) -> dict[str, str]:
    """The layers that hold what mounts show of contexts, by `content_name`."""
    found = {}
    for mount in node.mounts:
        if isinstance(mount, (BindMount, CacheMount)) and isinstance(mount.tree, FromContext):
            made = context_layer(environment, mount.tree.name, mount.source, f"/{MOUNTED}", f"{lineage}|{mount.source}")
            found[content_name(mount.tree, mount.source)] = made.diff_id
    return found
