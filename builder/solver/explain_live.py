"""Reasons for the misses of a build that is under way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from builder.plan.steps import Plan
from builder.progress import Reason
from builder.solver.explain import Explainer
from builder.solver.keys import Recipe, encode
from builder.solver.record import NotedAs, built_step
from builder.solver.solve import Root, Solver
from builder.solver.trace import Trace
from builder.store.builds import Build, BuiltStep
from builder.store.records import RecipeRecord, StepRecord
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.solver.external import External


class LiveExplainer:
    """Asked by a solver for each step that it did not find. `external` is what the caches know that the build names;
    `no_cache` is that of BuildOptions."""

    def __init__(
        self,
        solver: Solver,
        plan: Plan,
        store: Store,
        external: External | None,
        project: str,
        digest_of: NotedAs,
        no_cache: frozenset[str] | None,
    ) -> None:
        self._solver = solver
        self._plan = plan
        self._digest_of = digest_of
        self._no_cache = no_cache
        self._known: dict[tuple[int, Root | None, bool], BuiltStep] = {}
        past = Past(store, external)
        self._explainer = Explainer(past, past, project, self._steps, store.layers.available)

    def __call__(self, trace: Trace, recipe: bytes) -> Reason | None:
        number = int(trace.step)
        node = self._plan.nodes[number]
        if node.ignore_cache:
            return no_cache_reason(self._no_cache, node.stage)
        reason, earlier = self._explainer.reason(self._step(number), recipe, trace.origin)
        if earlier is not None:
            trace.previous_build, trace.previous_step = earlier.build.build, earlier.step.step
        return reason

    def _steps(self) -> Sequence[BuiltStep]:
        return [self._step(number) for number in range(len(self._plan.nodes))]

    def _step(self, number: int) -> BuiltStep:
        """What is known of a step by now; that of a step that is done, or has not begun, is looked up once. A solver
        that begins once more (`Solver.solve`) may give it another root."""
        solver = self._solver
        solved, root = solver.solved.get(number), solver.roots.get(number)
        state = (number, root, solved is None)
        known = self._known.get(state)
        if known is None:
            known = built_step(self._plan, number, solved, solver.roots, self._digest_of)
            if root is not None or solved is None:
                self._known[state] = known
        return known


class Past:
    """The builds and recipes of a store, then those of the caches that a build names."""

    def __init__(self, store: Store, external: External | None) -> None:
        self._store = store
        self._external = external
        self._noted: dict[str, RecipeRecord] = {}

    def note(self, key: str, recipe: Recipe) -> None:
        """Know the recipe of a key that is kept nowhere."""
        self._noted[key] = RecipeRecord(key, encode(recipe))

    def of(self, project: str) -> Iterator[Build]:
        yield from self._store.builds.of(project)
        if self._external is not None:
            yield from self._external.builds

    def is_complete(self) -> bool:
        return self._store.builds.is_complete() and (self._external is None or self._external.is_complete)

    def recipe(self, key: str) -> RecipeRecord | None:
        found = self._noted.get(key) or self._store.database.recipe(key)
        if found is None and self._external is not None:
            return self._external.recipe(key)
        return found

    def result(self, key: str) -> StepRecord | None:
        return self._store.database.result(key)


def no_cache_reason(no_cache: frozenset[str] | None, stage: str) -> Reason:
    """Why a step does not look into the cache at all."""
    return Reason("no-cache", f"--no-cache-filter={stage}" if no_cache else "--no-cache")
