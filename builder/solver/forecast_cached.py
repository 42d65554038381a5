"""Whether the cache has a step, asked as the build asks, and without making anything."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from builder.plan.steps import AnyNode, CopyFiles, CopyNode, FromNode, RunNode, TreeNode, WorkdirNode
from builder.solver.cache import Made
from builder.solver.copy import MOUNTED, context_node, find_copy, open_source
from builder.solver.environment import Environment
from builder.solver.explain_live import Past
from builder.solver.gather import Source
from builder.solver.keys import (
    copy_by_content,
    copy_by_identity,
    encode,
    facts,
    key_of,
    key_of_encoded,
    workdir_by_content,
    workdir_by_parent,
)
from builder.solver.make_copy import look_up_content, stage_copy
from builder.solver.make_workdir import stage_workdir
from builder.solver.roots import Layers
from builder.solver.run import context_parts, run_recipes
from builder.solver.trace import Trace


class Unseen(Exception):
    """A step has to look at files that are not here."""


class CachedSteps:
    """What the cache has. `past` is told what mounts show of contexts, which is kept nowhere."""

    def __init__(self, environment: Environment, past: Past) -> None:
        self._environment = environment
        self._past = past

    def find(self, node: AnyNode, layers: Mapping[int, Layers], trace: Trace) -> Made | None:
        """A step's result, if the cache has it. `layers` are those of the nodes that it needs; of a copy that does not
        ask its parent, that may be missing. Raises Unseen."""
        if isinstance(node, RunNode):
            return self._find_run(node, layers, trace)
        if isinstance(node, CopyNode):
            return self._find_copy(node, layers.get(node.parent, ()), layers, trace)
        if isinstance(node, WorkdirNode):
            return self._find_workdir(node, layers[node.parent], trace)
        assert isinstance(node, TreeNode)
        return self._find_copy(context_node(node.context, "/", "/"), (), {}, trace)

    def _find_run(self, node: RunNode, layers: Mapping[int, Layers], trace: Trace) -> Made | None:
        shown: dict[str, tuple[CopyNode, list[Source]]] = {}
        for name, tree, source in context_parts(node):
            with ExitStack() as held:
                part = trace.part(name)
                copy = context_node(tree.name, source, f"/{MOUNTED}")
                sources = self._copy_key(copy, (), {}, part, held)
                trace.parts[name] = part.key
                shown[part.key] = copy, sources
        for recipe in run_recipes(self._environment, node, layers[node.parent], layers, trace.parts):
            trace.recipe = encode(recipe)
            trace.key = key_of_encoded(trace.recipe)
            found = self._environment.cache.find(trace.key)
            if found is not None:
                return found
        found = self._find_mounted(node, layers, trace)
        if found is not None:
            return found
        for key, (copy, sources) in shown.items():  # to be compared, what mounts show has to be known file by file
            contents = [source.content() for source in sources]
            self._past.note(key, copy_by_content(copy, contents, {}, None, self._environment.epoch))
        return None

    def _find_mounted(self, node: RunNode, layers: Mapping[int, Layers], trace: Trace) -> Made | None:
        from builder.solver.mounted import MountedContent, mounted_stages

        stages = [layers[tree.node] for tree, _ in mounted_stages(node)]
        if not stages:
            return None
        recipes = partial(run_recipes, self._environment, node, layers[node.parent], layers)
        mounted = MountedContent(self._environment, node, layers, trace, recipes)
        found = mounted.known()
        if found is None:
            self._require_here(*stages)
            found = mounted.find()
        return found

    def _copy_key(
        self, node: CopyNode, parent: Layers, layers: Mapping[int, Layers], trace: Trace, held: ExitStack
    ) -> list[Source]:
        """Find out what a copy is first looked up by; files that nobody knows yet are read for it."""
        sources = [open_source(self._environment, node, source, dict(layers), held) for source in node.sources]
        for source in sources:
            if source.identity() is None:
                source.content()
        identities = [source.identity() for source in sources]
        trace.key = key_of(copy_by_identity(node, identities, parent, self._environment.epoch))
        return sources

    def _find_copy(self, node: CopyNode, parent: Layers, layers: Mapping[int, Layers], trace: Trace) -> Made | None:
        environment = self._environment
        with ExitStack() as held:
            sources = self._copy_key(node, parent, layers, trace, held)
            found = find_copy(environment, trace)
            if found is not None:
                return found
            trees = [source.tree for source in node.sources if isinstance(source, CopyFiles)]
            taken = [layers[tree.node] for tree in trees if isinstance(tree, FromNode)]
            self._require_here(*taken, *([parent] if node.asks_parent else []))
            scratch = held.enter_context(environment.store.scratch())
            staging, owner = stage_copy(environment, node, parent, sources, scratch)
            contents = [source.content() for source in sources]
            asked = facts(staging.facts())
            trace.recipe = encode(copy_by_content(node, contents, asked, owner, environment.epoch))
            trace.content = key_of_encoded(trace.recipe)
            return look_up_content(environment, sources, trace)

    def _find_workdir(self, node: WorkdirNode, parent: Layers, trace: Trace) -> Made | None:
        environment = self._environment
        trace.key = key_of(workdir_by_parent(node, parent, environment.epoch))
        found = environment.cache.find(trace.key)
        if found is not None:
            return found
        self._require_here(parent)
        staging, owner = stage_workdir(environment, node, parent)
        trace.recipe = encode(workdir_by_content(node, facts(staging.facts()), owner, environment.epoch))
        trace.content = key_of_encoded(trace.recipe)
        return environment.cache.find(trace.content)

    def _require_here(self, *stacks: Layers) -> None:
        """Raises Unseen unless every layer of these stacks is here."""
        store = self._environment.store
        for layers in stacks:
            for diff_id in layers:
                record = store.layers.record(diff_id)
                if record is None or not store.layout.has(record.digest):
                    raise Unseen
