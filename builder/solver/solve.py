"""Solves the graph: each node becomes a stack of layers, independent ones side by side.

Nodes run in threads as soon as what they need is there, at most `jobs` at once; a chain in which only one node is
ready at a time runs in the calling thread. The first failure ends the steps that run, keeps others from starting, and
is raised.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from graphlib import TopologicalSorter
from queue import SimpleQueue

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
    TreeNode,
    WorkdirNode,
)
from builder.progress import StepDone, StepStarted
from builder.solver.cache import Made
from builder.solver.copy import copy, tree_root, workdir
from builder.solver.environment import Environment
from builder.solver.roots import Layers
from builder.solver.run import run


class Root(msgspec.Struct, frozen=True):
    """A root file system: its layers' diff IDs, lowest first, and when the newest was made (None: not here)."""

    layers: Layers
    created: float | None = None
    cached: bool = True


BaseLayers = Callable[[ImageKey], Layers]
"""The diff IDs of a resolved image."""


class Solver:
    """Solves the nodes of one plan."""

    def __init__(
        self, plan: Plan, environment: Environment, base_layers: BaseLayers, locate: Locator, lineage: str
    ) -> None:
        self._plan = plan
        self._environment = environment
        self._base_layers = base_layers
        self._locate = locate
        self._lineage = lineage
        self.roots: dict[int, Root] = {}

    def solve(self, targets: Sequence[int], jobs: int) -> dict[int, Root]:
        """The roots of the targets and of all that they need. Raises what a step raised, with its place."""
        sorter: TopologicalSorter[int] = TopologicalSorter()
        waiting = list(targets)
        seen: set[int] = set()
        while waiting:
            number = waiting.pop()
            if number not in seen:
                seen.add(number)
                needs = self._plan.nodes[number].needs()
                sorter.add(number, *needs)
                waiting.extend(needs)
        sorter.prepare()
        self._drive(sorter, max(1, jobs))
        return self.roots

    def _drive(self, sorter: TopologicalSorter[int], jobs: int) -> None:
        done: SimpleQueue[tuple[int, Root | BaseException]] = SimpleQueue()
        ready: list[int] = []
        running = 0
        failure: BaseException | None = None
        try:
            while sorter.is_active() or running:
                if failure is None:
                    ready.extend(sorter.get_ready())
                    if len(ready) == 1 and not running:
                        number = ready.pop()
                        self.roots[number] = self._solve_one(number)
                        sorter.done(number)
                        continue
                    while ready and running < jobs:
                        self._start(ready.pop(0), done)
                        running += 1
                if not running:
                    break
                number, result = done.get()
                running -= 1
                if isinstance(result, BaseException):
                    if failure is None:
                        failure = result
                        self._stop()
                    ready.clear()
                else:
                    self.roots[number] = result
                    sorter.done(number)
        except BaseException:
            self._stop()
            while running:
                done.get()
                running -= 1
            raise
        if failure is not None:
            raise failure

    def _stop(self) -> None:
        self._environment.cancel()

    def _start(self, number: int, done: SimpleQueue[tuple[int, Root | BaseException]]) -> None:
        def work() -> None:
            try:
                done.put((number, self._solve_one(number)))
            except BaseException as error:
                done.put((number, error))

        threading.Thread(target=work, name=f"step-{number}", daemon=True).start()

    def _solve_one(self, number: int) -> Root:
        node = self._plan.nodes[number]
        environment = self._environment
        environment.check_cancelled()
        if isinstance(node, ScratchNode):
            return Root(())
        if isinstance(node, ImageNode):
            return Root(self._base_layers(node.image))
        step = str(number)
        environment.report(StepStarted(step, node.label))
        started = time.monotonic()
        try:
            with self._locate(node):
                made = self._make(node, step)
        except BaseException as error:
            if not isinstance(error, BuilderError) and environment.cancelled.is_set():
                error = Interrupted("the build was interrupted")
            cause = error.cause if isinstance(error, BuilderError) else str(error) or "interrupted"
            environment.report(StepDone(step, node.label, seconds=time.monotonic() - started, error=cause))
            raise error
        environment.report(StepDone(step, node.label, cached=made.cached, seconds=time.monotonic() - started))
        below = () if isinstance(node, TreeNode) else self.roots[node.parent].layers
        return Root((*below, made.diff_id), made.created, made.cached)

    def _make(self, node: AnyNode, step: str) -> Made:
        lineage = f"{self._lineage}|{node.platform}|{node.stage}|{step}"
        if isinstance(node, TreeNode):
            return tree_root(self._environment, node, lineage)
        assert isinstance(node, (RunNode, CopyNode, WorkdirNode))
        parent = self.roots[node.parent].layers
        needed = {need: self.roots[need].layers for need in node.needs()}
        if isinstance(node, CopyNode):
            return copy(self._environment, node, parent, needed, lineage)
        if isinstance(node, WorkdirNode):
            return workdir(self._environment, node, parent, lineage)
        return run(self._environment, node, parent, needed, lineage, step)
