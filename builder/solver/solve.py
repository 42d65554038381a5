"""Solves the graph: each node becomes a stack of layers, independent ones side by side.

Nodes run in threads as soon as what they need is there, at most `jobs` at once; a chain in which only one node is
ready at a time runs in the calling thread. The first failure ends the steps that run, keeps others from starting, and
is raised.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import msgspec

from builder.errors import BuilderError, Interrupted
from builder.plan.locate import Locator
from builder.plan.steps import (
    AnyNode,
    CopyNode,
    ImageKey,
    ImageNode,
    Plan,
    RunNode,
    ScratchNode,
    StepNode,
    TreeNode,
    WorkdirNode,
)
from builder.progress import Message, Reason, StepDone, StepMissed, StepStarted
from builder.solver.cache import Made
from builder.solver.environment import Environment
from builder.solver.trace import Explain, Trace
from builder.store.layers import MissingLayer

if TYPE_CHECKING:
    from queue import SimpleQueue

    from builder.solver.external import External
    from builder.solver.failed import StepState
    from builder.solver.roots import Layers


class Solved(msgspec.Struct, kw_only=True):
    """What became of a step: its trace, when it began (seconds since the epoch), how long it took, and its error
    ('interrupted' if the build ended first). `queued` is how long it could have run and waited for others to end, in
    seconds. `done` once it has a root; `external` if only a cache that the build names had it."""

    trace: Trace
    started: float
    queued: float = 0.0
    seconds: float = 0.0
    done: bool = False
    error: str = ""
    stopped: bool = False
    external: bool = False


class Root(msgspec.Struct, frozen=True):
    """A root file system: its layers' diff IDs, lowest first, and when the newest was made (None: not here)."""

    layers: Layers
    created: float | None = None
    cached: bool = True


BaseLayers = Callable[[ImageKey], "Layers"]
"""The diff IDs of a resolved image."""


class Solver:
    """Solves the nodes of one plan. `lineage` names its Dockerfile and context; `explain` says why a step was not
    found. What became of each step is in `solved`, by its number."""

    def __init__(
        self,
        plan: Plan,
        environment: Environment,
        base_layers: BaseLayers,
        locate: Locator,
        lineage: str,
    ) -> None:
        self._plan = plan
        self._environment = environment
        self._base_layers = base_layers
        self._locate = locate
        self._lineage = lineage
        self.explain: Explain | None = None
        self.roots: dict[int, Root] = {}
        self.solved: dict[int, Solved] = {}
        self._leading: set[int] = set()
        self._followers: dict[int, list[int]] = {}
        self._ready: dict[int, float] = {}  # since when a node has all that it needs

    @property
    def external(self) -> External | None:
        """What the caches know that the build names."""
        return self._environment.cache.external

    def solve(self, targets: Sequence[int], jobs: int) -> dict[int, Root]:
        """The roots of the targets and of all that they need. Raises what a step raised, with its place.

        A cache that the build names may know what steps give without having their layers, or have them no more. When
        such a layer is needed, all is solved once more without it: what was made meanwhile is then found.
        """
        while True:
            try:
                self._attempt(targets, jobs)
                if self._environment.cache.external is not None:
                    self._environment.cache.fetch([layer for target in targets for layer in self.roots[target].layers])
                return self.roots
            except MissingLayer as missing:
                if not self._environment.cache.do_without(missing.diff_ids):
                    raise
                self._environment.report(Message(_why_again(missing)))
                self.roots.clear()

    def _attempt(self, targets: Sequence[int], jobs: int) -> None:
        sorter: TopologicalSorter[int] = TopologicalSorter()
        self._followers = {}
        needed = self._plan.needed(targets)
        for number in needed:
            needs = self._plan.nodes[number].needs()
            sorter.add(number, *needs)
            for need in needs:
                self._followers.setdefault(need, []).append(number)
        self._leading = self._leading_to_commands(needed)
        sorter.prepare()
        self._drive(sorter, max(1, jobs))

    def _drive(self, sorter: TopologicalSorter[int], jobs: int) -> None:
        ready: list[int] = []
        running = 0
        failure: BaseException | None = None
        try:
            while sorter.is_active() or running:
                if failure is None:
                    fresh = sorter.get_ready()
                    self._ready.update(dict.fromkeys(fresh, time.time()))
                    ready.extend(fresh)
                    if len(ready) == 1 and not running:
                        number = ready.pop()
                        self.roots[number] = self._solve_one(number, alone=True)
                        sorter.done(number)
                        continue
                    while ready and running < jobs:
                        self._start(ready.pop(0))
                        running += 1
                if not running:
                    break
                number, result = self._done.get()
                running -= 1
                if isinstance(result, BaseException):
                    if failure is None:
                        failure = result
                        if not self._may_do_without(result):
                            self._stop()
                    ready.clear()
                else:
                    self.roots[number] = result
                    sorter.done(number)
        except BaseException as error:
            if not self._may_do_without(error):
                self._stop()
            while running:
                self._done.get()
                running -= 1
            raise
        if failure is not None:
            raise failure

    def _may_do_without(self, error: BaseException) -> bool:
        """Whether a failure is none of the build's, so that what else runs can go on to its end."""
        return isinstance(error, MissingLayer) and self._environment.cache.external is not None

    def _stop(self) -> None:
        self._environment.cancel()

    @cached_property
    def _done(self) -> SimpleQueue[tuple[int, Root | BaseException]]:
        """What came of the steps that were started."""
        from queue import SimpleQueue  # not for builds of which each step waits for another

        return SimpleQueue()

    def _start(self, number: int) -> None:
        done = self._done  # made here, not in two threads at once

        def work() -> None:
            try:
                done.put((number, self._solve_one(number)))
            except BaseException as error:
                done.put((number, error))

        threading.Thread(target=work, name=f"step-{number}", daemon=True).start()

    def _solve_one(self, number: int, *, alone: bool = False) -> Root:
        node = self._plan.nodes[number]
        environment = self._environment
        environment.check_cancelled()
        if isinstance(node, ScratchNode):
            return Root(())
        if isinstance(node, ImageNode):
            return Root(self._base_layers(node.image))
        step = str(number)
        trace = Trace(step, self.place(number), self._missed)
        now = time.time()
        queued = max(0.0, now - self._ready.get(number, now))
        solved = self.solved[number] = Solved(trace=trace, started=now, queued=queued)
        environment.report(StepStarted(step, node.label, tuple(map(str, node.needs()))))
        started = time.monotonic()
        try:
            with self._locate(node):
                made = self._make(node, trace, self._following(number) if alone else None)
        except BaseException as error:
            if self._may_do_without(error):
                raise
            if not isinstance(error, BuilderError) and environment.cancelled:
                error = Interrupted("the build was interrupted")
            if environment.guard is not None:
                environment.guard.redact(error)
            cause = error.cause if isinstance(error, BuilderError) else str(error) or "interrupted"
            solved.seconds, solved.error = time.monotonic() - started, cause
            solved.stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
            if environment.keep is not None and isinstance(error, BuilderError) and not solved.stopped:
                self._keep(number, error)
            environment.report(StepDone(step, node.label, seconds=solved.seconds, error=cause, reason=trace.reason))
            raise error
        solved.seconds, solved.done, solved.external = time.monotonic() - started, True, made.external
        trace.recipe = None  # of a COPY of many files it is large
        reason = None if made.cached else trace.reason
        environment.report(StepDone(step, node.label, cached=made.cached, seconds=solved.seconds, reason=reason))
        below = () if isinstance(node, TreeNode) else self.roots[node.parent].layers
        return Root((*below, made.diff_id), made.created, made.cached)

    def _keep(self, number: int, error: BuilderError) -> None:
        """Keep what a step stood on that failed; of a command that was started, `execute` has kept more."""
        keep, node = self._environment.keep, self._plan.nodes[number]
        if keep is not None and not error.kept and not isinstance(node, TreeNode):
            error.kept = keep(self._state(number, unready=True), error.cause, "")

    def _state(self, number: int, *, unready: bool = False) -> StepState:
        """Where a step stands whose command has not run."""
        from builder.solver.failed import StepState

        node = self._plan.nodes[number]
        assert isinstance(node, (RunNode, CopyNode, WorkdirNode))
        roots = {need: self.roots[need].layers for need in node.needs()}
        return StepState(node=node, parent=roots[node.parent], roots=roots, ran=False, unready=unready)

    def place(self, number: int) -> str:
        """What names a step among those of all Dockerfiles, wherever other instructions are put around it."""
        node = self._plan.nodes[number]
        return f"{self._lineage}|{node.platform}|{node.stage}|{node.instruction}"

    def _missed(self, trace: Trace, recipe: bytes) -> Reason | None:
        """A step was not found: ask why, and tell."""
        if int(trace.step) in self._leading:
            self._environment.prepare_sandbox()
        reason = self.explain(trace, recipe) if self.explain is not None else None
        if reason is not None:
            self._environment.report(StepMissed(trace.step, reason))
        return reason

    def _leading_to_commands(self, numbers: Sequence[int]) -> set[int]:
        """The commands among these nodes, and what they need. Nodes have higher numbers than what they need."""
        leading: set[int] = set()
        for number in reversed(numbers):
            node = self._plan.nodes[number]
            if isinstance(node, RunNode) or number in leading:
                leading.update((number, *node.needs()))
        return leading

    def _following(self, number: int) -> StepNode | None:
        """The step that comes next, if it stands on this node and nothing else needs that."""
        followers = self._followers.get(number, ())
        node = self._plan.nodes[followers[0]] if len(followers) == 1 else None
        return node if isinstance(node, (RunNode, CopyNode)) and node.parent == number else None

    def _is_followed(self, number: int) -> bool:
        """Whether a COPY, ADD or WORKDIR stands on this node."""
        followers = (self._plan.nodes[follower] for follower in self._followers.get(number, ()))
        return any(isinstance(node, (CopyNode, WorkdirNode)) and node.parent == number for node in followers)

    def _make(self, node: AnyNode, trace: Trace, following: StepNode | None) -> Made:
        if isinstance(node, TreeNode):
            from builder.solver.copy import tree_root

            return tree_root(self._environment, node, trace)
        assert isinstance(node, (RunNode, CopyNode, WorkdirNode))
        parent = self.roots[node.parent].layers
        needed = {need: self.roots[need].layers for need in node.needs()}
        number = int(trace.step)
        if self._environment.before is not None and not isinstance(node, RunNode):  # `run` knows more of its own
            self._environment.before(self._state(number), number)
        if isinstance(node, CopyNode):
            from builder.solver.copy import copy

            followed, mounted = self._is_followed(number), number in self._leading
            return copy(self._environment, node, parent, needed, trace, followed=followed, mounted=mounted)
        if isinstance(node, WorkdirNode):
            from builder.solver.copy import workdir

            return workdir(self._environment, node, parent, trace, followed=self._is_followed(number))
        from builder.solver.run import run

        return run(self._environment, node, parent, needed, trace, following)


def _why_again(missing: MissingLayer) -> str:
    why = f" ({missing.failure})" if missing.failure is not None else ""
    if len(missing.diff_ids) == 1:
        return f"a layer is needed that no cache has{why}: the step that makes it runs after all"
    return f"{len(missing.diff_ids)} layers are needed that no cache has{why}: the steps that make them run after all"
