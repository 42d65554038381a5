"""The layers of WORKDIR: placed over the parent, looked up once more, and written."""

from __future__ import annotations

from builder.filesystem import kinds
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo
from builder.plan.paths import clean
from builder.plan.steps import WorkdirNode
from builder.solver.assemble import write_layer
from builder.solver.cache import Made, now, now_ns
from builder.solver.environment import Environment
from builder.solver.keys import Recipe, encode, facts, key_of_encoded, workdir_by_content
from builder.solver.outline import keep_outline, outline_of, seen_tree
from builder.solver.place import make_directories
from builder.solver.roots import Layers
from builder.solver.staging import Staging
from builder.solver.trace import Trace
from builder.solver.users import check_owner, find_owner


def make_workdir(
    environment: Environment,
    node: WorkdirNode,
    parent: Layers,
    quick: Recipe,
    trace: Trace,
    *,
    followed: bool,
) -> Made:
    """Make the layer of a WORKDIR."""
    staging, owner = stage_workdir(environment, node, parent)
    recipe = encode(workdir_by_content(node, facts(staging.facts()), owner, environment.epoch))
    trace.content = key_of_encoded(recipe)
    made = None if node.ignore_cache else environment.cache.find(trace.content)
    if made is None:
        trace.missed(recipe)
        with environment.store.scratch() as scratch:
            blob = write_layer(
                staging,
                scratch,
                compression=environment.compression,
                epoch=environment.epoch,
                guard=environment.guard,
            )
            environment.store.layers.add(blob)
        if followed:
            keep_outline(environment, blob.diff_id, outline_of(staging, environment.epoch))
        made = Made(blob.diff_id, now(environment.epoch))
    environment.cache.remember_encoded(trace.content, recipe, made, trace.place)
    environment.cache.remember(quick, made, trace.place, content=trace.content)
    return made


def stage_workdir(environment: Environment, node: WorkdirNode, parent: Layers) -> tuple[Staging, list[int]]:
    """The directories that a WORKDIR makes over its parent, and their owner."""
    tree = seen_tree(environment, parent)
    staging = Staging(tree)
    if node.user and not parent:
        check_owner(node.user, "USER")
    owner = find_owner(tree, node.user) if node.user else (0, 0)
    directory = FileInfo(kinds.DIRECTORY, 0o755, owner[0], owner[1], 0, now_ns(environment.epoch))
    make_directories(staging, resolve(staging, clean(node.path)), directory)
    return staging, list(owner)
