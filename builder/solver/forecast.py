"""What a build would do, step by step, without doing it: the cache is looked up, nothing is run, written or pulled.

A step is looked up as the build would. Where a step before it is not in the cache, what it would make is not known, and
so nothing can be said of the step: it may be found again, since parents count by content. What a step asks of its
parent's files is looked at only where they are here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import msgspec

from builder.plan.locate import Locator
from builder.plan.steps import (
    AnyNode,
    CopyFiles,
    CopyNode,
    FromNode,
    ImageNode,
    Plan,
    RunNode,
    ScratchNode,
    TreeNode,
    WorkdirNode,
)
from builder.progress import Reason
from builder.solver.cache import Made
from builder.solver.copy import MOUNTED, context_node, copy_flags, find_copy, hide, open_source, seen_by_copy
from builder.solver.environment import Environment
from builder.solver.explain import Explainer
from builder.solver.explain_live import Past, no_cache_reason
from builder.solver.gather import Source
from builder.solver.keys import Recipe, copy_recipe, encode, facts, key_of, key_of_encoded, workdir_recipe
from builder.solver.make_copy import look_up_content, stage_copy
from builder.solver.make_workdir import stage_workdir
from builder.solver.record import NotedAs, built_step
from builder.solver.required import check_required
from builder.solver.roots import Layers
from builder.solver.run import context_parts, run_recipes
from builder.solver.solve import BaseLayers, Root, Solved, Solver
from builder.solver.trace import Trace
from builder.store.builds import BuiltStep

CACHED, RUNS, UNKNOWN, NOT_NEEDED = "cached", "runs", "unknown", "not needed"


class StepForecast(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What would become of a step. `outcome` is cached, runs, unknown or not needed. `reason` says why it would run
    where that is known; `depends_on` is the place of the step that has to run before more can be said, `unseen` that
    the files of its parent are not here."""

    step: str = ""
    position: str
    stage: str
    platform: str = ""
    instruction: str
    line: int = 0
    outcome: str
    reason: Reason | None = None
    depends_on: str = ""
    unseen: bool = False


class BlobToPull(msgspec.Struct, frozen=True):
    """A layer of a base image that the build would have to fetch. `size` is in bytes, as it is transferred."""

    image: str
    digest: str
    size: int


class _Unseen(Exception):
    """A step has to look at files that are not here."""


class Forecaster:
    """Looks at the nodes of one plan. `no_cache` is that of BuildOptions."""

    def __init__(
        self,
        plan: Plan,
        environment: Environment,
        base_layers: BaseLayers,
        locate: Locator,
        project: str,
        digest_of: NotedAs,
        no_cache: frozenset[str] | None,
    ) -> None:
        self._plan = plan
        self._environment = environment
        self._base_layers = base_layers
        self._locate = locate
        self._digest_of = digest_of
        self._no_cache = no_cache
        self._solver = Solver(plan, environment, base_layers, locate, project)
        self._roots: dict[int, Root] = {}
        self._solved: dict[int, Solved] = {}
        self._looked_into: set[int] = set()
        self._causes: dict[int, str] = {}  # of steps that have no root: the position of the one that runs first
        store = environment.store
        self._past = past = Past(store, environment.cache.external)
        self._explainer = Explainer(past, past, project, self._steps, store.layers.available)

    def forecast(self) -> list[StepForecast]:
        """All steps in order, then what nothing needs. Raises what the build would raise before its first step."""
        needed = self._needed()
        found = []
        for number, node in enumerate(self._plan.nodes):
            if isinstance(node, ScratchNode):
                self._roots[number] = Root(())
            elif isinstance(node, ImageNode):
                self._roots[number] = Root(self._base_layers(node.image))
            elif number not in needed:
                found.append(self._told(number, NOT_NEEDED))
            else:
                with self._locate(node):
                    found.append(self._step(number, node))
        for left_out in self._plan.unneeded:
            line = left_out.range.start if left_out.range else 0
            found.append(
                StepForecast(
                    position=left_out.stage,
                    stage=left_out.stage,
                    instruction=left_out.instruction,
                    line=line,
                    outcome=NOT_NEEDED,
                )
            )
        return found

    def to_pull(self) -> list[BlobToPull]:
        """What the build would fetch at most: the layers of the images' bases, and of the bases that steps look into
        which may run."""
        store = self._environment.store
        wanted: set[int] = set()
        for top in (*(image.node for image in self._plan.images), *self._looked_into):
            for number in self._chain(top):
                if number in wanted:  # and so is what it stands on
                    break
                wanted.add(number)
        found: dict[str, BlobToPull] = {}
        for number in sorted(wanted):
            node = self._plan.nodes[number]
            if not isinstance(node, ImageNode):
                continue
            for diff_id in self._base_layers(node.image):
                record = store.layers.record(diff_id)
                if record is not None and not store.layout.has(record.digest):
                    found.setdefault(record.digest, BlobToPull(node.image.reference, record.digest, record.size))
        return list(found.values())

    # --- the graph

    def _needed(self) -> set[int]:
        waiting = [image.node for image in self._plan.images]
        seen: set[int] = set()
        while waiting:
            number = waiting.pop()
            if number not in seen:
                seen.add(number)
                waiting.extend(self._plan.nodes[number].needs())
        return seen

    def _chain(self, number: int) -> Iterator[int]:
        """A node and those that its layers come from."""
        yield number
        node = self._plan.nodes[number]
        while isinstance(node, (RunNode, CopyNode, WorkdirNode)):
            number = node.parent
            yield number
            node = self._plan.nodes[number]

    def _steps(self) -> Sequence[BuiltStep]:
        return [self._built(number) for number in range(len(self._plan.nodes))]

    def _built(self, number: int) -> BuiltStep:
        return built_step(self._plan, number, self._solved.get(number), self._roots, self._digest_of)

    def _told(
        self, number: int, outcome: str, reason: Reason | None = None, depends_on: str = "", unseen: bool = False
    ) -> StepForecast:
        step = self._built(number)
        return StepForecast(
            step=step.step,
            position=step.position,
            stage=step.stage,
            platform=step.platform,
            instruction=step.instruction,
            line=step.line,
            outcome=outcome,
            reason=reason,
            depends_on=depends_on,
            unseen=unseen,
        )

    # --- one step

    def _step(self, number: int, node: AnyNode) -> StepForecast:
        trace = Trace(str(number), self._solver.place(number))
        self._solved[number] = Solved(trace=trace, started=0.0)
        if isinstance(node, RunNode):
            check_required(self._environment, node.mounts)
        if node.ignore_cache:
            self._looked_into.update(node.needs())
            return self._told(number, RUNS, no_cache_reason(self._no_cache, node.stage))
        open_needs = [need for need in self._asked(node) if need not in self._roots]
        if open_needs:
            self._looked_into.update(node.needs())
            return self._told(number, UNKNOWN, depends_on=self._cause(open_needs[0]))
        try:
            made = self._look_up(node, trace)
        except _Unseen:
            self._looked_into.update(node.needs())
            return self._told(number, UNKNOWN, unseen=True)
        if made is not None:
            below = () if isinstance(node, TreeNode) else self._roots[node.needs()[0]].layers
            self._roots[number] = Root((*below, made.diff_id), made.created)
            return self._told(number, CACHED)
        self._looked_into.update(node.needs())
        reason, _ = self._explainer.reason(self._built(number), trace.recipe)
        return self._told(number, RUNS, reason)

    def _asked(self, node: AnyNode) -> Sequence[int]:
        """The nodes whose layers a step is looked up by."""
        needs = node.needs()
        if isinstance(node, CopyNode) and not seen_by_copy(node, ("parent",))["parent"]:
            return needs[1:]
        return needs

    def _cause(self, number: int) -> str:
        """The step that has to run first, for a step that needs this one."""
        passed = []
        while number not in self._causes:
            passed.append(number)
            open_needs = [need for need in self._plan.nodes[number].needs() if need not in self._roots]
            if not open_needs:
                self._causes[number] = self._built(number).position
            else:
                number = open_needs[0]
        cause = self._causes[number]
        self._causes.update(dict.fromkeys(passed, cause))
        return cause

    def _look_up(self, node: AnyNode, trace: Trace) -> Made | None:
        layers = {need: self._roots[need].layers for need in node.needs() if need in self._roots}
        if isinstance(node, RunNode):
            return self._look_up_run(node, layers, trace)
        if isinstance(node, CopyNode):
            return self._look_up_copy(node, layers.get(node.parent, ()), layers, trace)
        if isinstance(node, WorkdirNode):
            return self._look_up_workdir(node, layers[node.parent], trace)
        assert isinstance(node, TreeNode)
        return self._look_up_copy(context_node(node.context, "/", "/"), (), {}, trace)

    def _look_up_run(self, node: RunNode, layers: Mapping[int, Layers], trace: Trace) -> Made | None:
        shown: dict[str, tuple[list[Source], Recipe]] = {}
        for name, tree, source in context_parts(node):
            with ExitStack() as held:
                part = trace.part(name)
                taken = self._copy_key(context_node(tree.name, source, f"/{MOUNTED}"), (), {}, part, held)
                trace.parts[name] = part.key
                shown[part.key] = taken
        for recipe in run_recipes(self._environment, node, layers[node.parent], layers, trace.parts):
            trace.recipe = encode(recipe)
            trace.key = key_of_encoded(trace.recipe)
            found = self._environment.cache.find(trace.key)
            if found is not None:
                return found
        for key, (sources, flags) in shown.items():  # to be compared, what mounts show has to be known file by file
            self._past.note(key, copy_recipe([source.content() for source in sources], flags, {}))
        return None

    def _copy_key(
        self, node: CopyNode, parent: Layers, layers: Mapping[int, Layers], trace: Trace, held: ExitStack
    ) -> tuple[list[Source], Recipe]:
        """Find out what a copy is first looked up by; files that nobody knows yet are read for it."""
        sources = [open_source(self._environment, node, source, dict(layers), held) for source in node.sources]
        for source in sources:
            if source.identity() is None:
                source.content()
        flags = copy_flags(self._environment, node)
        identities = [source.identity() for source in sources]
        trace.key = key_of(copy_recipe(identities, flags, seen_by_copy(node, parent)))
        return sources, flags

    def _look_up_copy(self, node: CopyNode, parent: Layers, layers: Mapping[int, Layers], trace: Trace) -> Made | None:
        environment = self._environment
        with ExitStack() as held:
            sources, flags = self._copy_key(node, parent, layers, trace, held)
            found = find_copy(environment, trace)
            if found is not None:
                return found
            trees = [source.tree for source in node.sources if isinstance(source, CopyFiles)]
            taken = [layers[tree.node] for tree in trees if isinstance(tree, FromNode)]
            self._require_here(*taken, *([] if node.link and not node.owner_is_named else [parent]))
            scratch = held.enter_context(environment.store.scratch())
            staging, owner = stage_copy(environment, node, parent, sources, scratch)
            contents = [source.content() for source in sources]
            asked = hide(facts(staging.facts()), node)
            trace.recipe = encode(copy_recipe(contents, {**flags, "owner": owner}, asked))
            trace.content = key_of_encoded(trace.recipe)
            return look_up_content(environment, sources, trace)

    def _look_up_workdir(self, node: WorkdirNode, parent: Layers, trace: Trace) -> Made | None:
        environment = self._environment
        settings: Recipe = {"epoch": environment.epoch}
        trace.key = key_of(hide(workdir_recipe(node, {"parent": list(parent)}, settings), node))
        found = environment.cache.find(trace.key)
        if found is not None:
            return found
        self._require_here(parent)
        staging, owner = stage_workdir(environment, node, parent)
        asked = facts(staging.facts())
        trace.recipe = encode(hide(workdir_recipe(node, asked, {**settings, "owner": owner}), node))
        trace.content = key_of_encoded(trace.recipe)
        return environment.cache.find(trace.content)

    def _require_here(self, *stacks: Layers) -> None:
        """Raises _Unseen unless every layer of these stacks is here."""
        store = self._environment.store
        for layers in stacks:
            for diff_id in layers:
                record = store.layers.record(diff_id)
                if record is None or not store.layout.has(record.digest):
                    raise _Unseen
