"""What steps are compared by, while a build is under way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from builder.plan.steps import Plan, RunNode
from builder.solver.explain_live import LiveExplainer
from builder.solver.solve import Root, Solved
from builder.solver.trace import Trace
from builder.store.store import Store
from tests.solver.support import HOST


@pytest.fixture
def solver() -> Any:
    return SimpleNamespace(roots={}, solved={})


@pytest.fixture
def explainer(solver: Any, store: Store) -> LiveExplainer:
    step = RunNode(label="[s 1/1] RUN true", stage="s", platform=HOST, parent=0, argv=("true",), env=())
    plan = Plan(nodes=(step,), images=())
    return LiveExplainer(solver, plan, store, None, "project", lambda image: "", None)


def test_a_step_that_is_done_is_looked_up_once(explainer: LiveExplainer, solver: Any) -> None:
    solver.solved[0] = Solved(trace=Trace("0", "place"), started=1.0)
    assert explainer._steps()[0] is not explainer._steps()[0]
    solver.roots[0] = Root(("sha256:a",), 1.0)
    assert explainer._steps()[0] is explainer._steps()[0]


def test_steps_that_are_solved_once_more(explainer: LiveExplainer, solver: Any) -> None:
    """A layer that no cache has any more: `Solver.solve` clears the roots, and makes it."""
    solver.solved[0] = Solved(trace=Trace("0", "place"), started=1.0)
    solver.roots[0] = Root(("sha256:gone",), 1.0)
    assert [(step.layers, step.outcome) for step in explainer._steps()] == [(("sha256:gone",), "cached")]
    solver.roots.clear()
    solver.roots[0] = Root(("sha256:made",), 2.0, cached=False)
    assert [(step.layers, step.outcome) for step in explainer._steps()] == [(("sha256:made",), "ran")]
