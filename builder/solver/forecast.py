"""What a build would do, step by step, without doing it: the cache is looked up, nothing is run, written or pulled.

A step is looked up as the build would. Where a step before it is not in the cache, what it would make is not known, and
so nothing can be said of the step: it may be found again, since parents count by content. What a step asks of its
parent's files is looked at only where they are here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from builder.plan.locate import Locator
from builder.plan.steps import (
    AnyNode,
    CopyNode,
    ImageNode,
    Plan,
    RunNode,
    ScratchNode,
    TreeNode,
    WorkdirNode,
)
from builder.progress import Reason
from builder.solver.environment import Environment
from builder.solver.explain import Explainer
from builder.solver.explain_live import Past, no_cache_reason
from builder.solver.forecast_cached import CachedSteps, Unseen
from builder.solver.record import NotedAs, built_step
from builder.solver.required import check_required
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
        past = Past(store, environment.cache.external)
        self._cached = CachedSteps(environment, past)
        self._explainer = Explainer(past, past, project, self._steps, store.layers.available)

    def forecast(self) -> list[StepForecast]:
        """All steps in order, then what nothing needs. Raises what the build would raise before its first step."""
        needed = set(self._plan.needed(image.node for image in self._plan.images))
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
            layers = {need: self._roots[need].layers for need in node.needs() if need in self._roots}
            made = self._cached.find(node, layers, trace)
        except Unseen:
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
        if isinstance(node, CopyNode) and not node.asks_parent:
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
