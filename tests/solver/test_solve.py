"""Graphs are solved: in their order, side by side, once, and not beyond a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.dockerfile.instructions import Range
from builder.errors import BuilderError, Interrupted, StepFailed
from builder.plan.locate import Locator
from builder.plan.steps import (
    AnyNode,
    CopyFiles,
    CopyNode,
    FromNode,
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
from builder.solver.environment import Environment
from builder.solver.solve import Root, Solver
from builder.store.store import Store
from tests.solver.support import HOST, base_layer, entries, environment, node, write

TEXT = "FROM scratch\nRUN a\nRUN b\n"
Action = Callable[[Environment, RunNode], Made]


def is_cancelled(environment: Environment) -> bool:
    """Whether it becomes so in time."""
    deadline = time.monotonic() + 20
    while not environment.cancelled and time.monotonic() < deadline:
        time.sleep(0.001)
    return environment.cancelled


def scratch() -> ScratchNode:
    return ScratchNode(label="FROM scratch", stage="s", platform=HOST)


def command(name: str, parent: int, *needs: int) -> RunNode:
    """A command that only the tests below run; it needs other nodes through mounts."""
    from builder.plan.steps import BindMount

    mounts = tuple(BindMount(target=f"/{need}", tree=FromNode(need)) for need in needs)
    return RunNode(
        label=f"RUN {name}",
        stage="s",
        platform=HOST,
        parent=parent,
        argv=(name,),
        env=(),
        mounts=mounts,
        range=Range(2, 2),
    )


@pytest.fixture
def solver(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Solver, list[Any]]]:
    """Makes a solver for nodes; commands do what `action` does instead of running in a sandbox."""
    layer = base_layer(store, write(tmp_path / "layer", {"f": "f"}))

    def make(
        nodes: list[AnyNode], action: Action | None = None, context: Path | None = None
    ) -> tuple[Solver, list[Any]]:
        def run(environment: Environment, step: RunNode, *_: object) -> Made:
            return action(environment, step) if action is not None else Made(layer, 1.0)

        monkeypatch.setattr("builder.solver.run.run", run)
        made, events = environment(store, context)
        locate = Locator("Dockerfile", TEXT)
        return Solver(Plan(tuple(nodes), ()), made, lambda key: (layer,), locate, "here"), events

    return make


def test_real_steps(store: Store, solver: Callable[..., tuple[Solver, list[Any]]], tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"a": "1"})
    nodes: list[AnyNode] = [
        scratch(),
        node("a", to="/n/"),
        WorkdirNode(label="WORKDIR", stage="s", platform=HOST, parent=1, path="/n/w"),
        TreeNode(label="FROM tree", stage="t", platform=HOST, context=""),
        CopyNode(
            label="COPY", stage="s", platform=HOST, parent=2, destination="/", sources=(CopyFiles(FromNode(3), "/a"),)
        ),
        node("never", to="/"),
    ]  # fmt: skip
    made, events = solver(nodes, context=context)
    roots = made.solve([4], jobs=2)
    assert sorted(roots) == [0, 1, 2, 3, 4]  # what the target does not need is not done
    assert len(roots[4].layers) == 3
    assert roots[4].layers[:2] == roots[2].layers
    assert entries(store, roots[4].layers[-1]) == {"a": "file 644 0:0 1"}
    assert entries(store, roots[2].layers[-1]) == {"n": "dir 755 0:0", "n/w": "dir 755 0:0"}
    done = [event for event in events if isinstance(event, StepDone)]
    assert [event.cached for event in done] == [False] * 4
    again, events = solver(nodes, context=context)
    assert again.solve([4], jobs=2)[4].layers == roots[4].layers
    assert all(event.cached for event in events if isinstance(event, StepDone))
    started = [event.step for event in events if isinstance(event, StepStarted)]
    assert sorted(started) == ["1", "2", "3", "4"]
    assert started.index("1") < started.index("2")
    assert started[-1] == "4"  # the third step needs none of the first two, and the fourth all


def test_an_image_is_its_layers(solver: Callable[..., tuple[Solver, list[Any]]]) -> None:
    image = ImageNode(label="FROM x", stage="s", platform=HOST, image=ImageKey("docker.io/library/x:latest", HOST))
    made, events = solver([image])
    assert len(made.solve([0], jobs=1)[0].layers) == 1
    assert events == []


def test_what_is_independent_runs_side_by_side(solver: Callable[..., tuple[Solver, list[Any]]]) -> None:
    meeting = threading.Barrier(2, timeout=20)
    layer = "sha256:" + "0" * 64

    def action(_: Environment, step: RunNode) -> Made:
        if step.argv[0] in ("a", "b"):
            meeting.wait()  # each waits until the other runs
        return Made(layer, 1.0)

    made, _ = solver([scratch(), command("a", 0), command("b", 0), command("end", 1, 2)], action)
    assert made.solve([3], jobs=2)[3] == Root((layer, layer), 1.0, False)


@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_no_more_than_jobs_at_once(solver: Callable[..., tuple[Solver, list[Any]]], jobs: int) -> None:
    running, most, begun, lock = 0, 0, 0, threading.Lock()
    meeting = threading.Barrier(max(1, jobs), timeout=20)

    def action(_: Environment, step: RunNode) -> Made:
        nonlocal running, most, begun
        with lock:
            running += 1
            most = max(most, running)
            begun += 1
            first = begun <= meeting.parties
        if first:
            meeting.wait()  # as many as may run at once do
        time.sleep(0.01)
        with lock:
            running -= 1
        return Made("sha256:" + "0" * 64, 1.0)

    branches = [command(str(number), 0) for number in range(8)]
    made, _ = solver([scratch(), *branches, command("end", 1, *range(2, 9))], action)
    made.solve([9], jobs=jobs)
    assert most == max(1, jobs)


def test_each_node_is_solved_once(solver: Callable[..., tuple[Solver, list[Any]]]) -> None:
    count: dict[str, int] = {}

    def action(_: Environment, step: RunNode) -> Made:
        count[step.argv[0]] = count.get(step.argv[0], 0) + 1
        return Made("sha256:" + "0" * 64, 1.0)

    made, _ = solver([scratch(), command("a", 0), command("b", 1), command("c", 1, 2), command("d", 2, 1, 3)], action)
    made.solve([4, 2, 3], jobs=4)
    assert count == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_a_failure_has_its_place(solver: Callable[..., tuple[Solver, list[Any]]]) -> None:
    def action(_: Environment, step: RunNode) -> Made:
        raise StepFailed("it broke")

    made, events = solver([scratch(), command("a", 0)], action)
    with pytest.raises(StepFailed) as caught:
        made.solve([1], jobs=2)
    assert caught.value.place == "Dockerfile:2"
    assert any(">>> RUN a" in line for line in caught.value.details)
    assert [event.error for event in events if isinstance(event, StepDone)] == ["it broke"]


def test_one_failed_branch_ends_the_others(solver: Callable[..., tuple[Solver, list[Any]]]) -> None:
    begun = threading.Event()
    done: list[str] = []

    def action(environment: Environment, step: RunNode) -> Made:
        done.append(step.argv[0])
        if step.argv[0] == "fails":
            assert begun.wait(20)
            raise StepFailed("it broke")
        begun.set()
        assert is_cancelled(environment)  # as a sandbox does
        environment.check_cancelled()
        raise AssertionError

    nodes = [
        scratch(),
        command("waits", 0),
        command("fails", 0),
        command("after", 1),
        command("more", 2),
        command("end", 3, 4),
    ]
    made, _ = solver(nodes, action)
    with pytest.raises(StepFailed, match="it broke"):
        made.solve([5], jobs=2)
    assert sorted(done) == ["fails", "waits"]
    assert made._environment.cancelled


def test_cancelling_ends_what_runs_and_starts_nothing(solver: Callable[..., tuple[Solver, list[Any]]]) -> None:
    seen: list[str] = []

    def action(environment: Environment, step: RunNode) -> Made:
        seen.append(step.argv[0])
        environment.cancel()
        environment.check_cancelled()
        raise AssertionError

    made, events = solver([scratch(), command("a", 0), command("b", 1)], action)
    with pytest.raises(Interrupted):
        made.solve([2], jobs=1)
    assert seen == ["a"]
    assert [event.error for event in events if isinstance(event, StepDone)] == ["the build was interrupted"]
    with pytest.raises(Interrupted):
        _ = made._environment.sandbox


def test_an_interrupt_waits_for_what_runs(solver: Callable[..., tuple[Solver, list[Any]]]) -> None:
    ended = threading.Event()
    begun = threading.Event()

    def action(environment: Environment, step: RunNode) -> Made:
        if step.argv[0] == "b":
            assert begun.wait(20)
            raise KeyboardInterrupt
        begun.set()
        assert is_cancelled(environment)
        time.sleep(0.05)
        ended.set()
        raise OSError("killed")

    made, events = solver([scratch(), command("a", 0), command("b", 0), command("end", 1, 2)], action)
    with pytest.raises((KeyboardInterrupt, BuilderError)):
        made.solve([3], jobs=2)
    assert ended.is_set()
    errors = {event.error for event in events if isinstance(event, StepDone)}
    assert "the build was interrupted" in errors


def test_nothing_is_left_over(store: Store, solver: Callable[..., tuple[Solver, list[Any]]], tmp_path: Path) -> None:
    made, _ = solver([scratch(), node("missing")], context=write(tmp_path / "context", {}))
    with pytest.raises(StepFailed, match="/missing was not found"):
        made.solve([1], jobs=1)
    assert list(Path(store.temporary).iterdir()) == []


@pytest.mark.parametrize(
    ("commands", "prepared"),
    [
        pytest.param([], [], id="no RUN"),
        pytest.param([command("a", 1)], [True], id="RUN after it"),
        pytest.param([command("a", 0, 1)], [True], id="RUN that mounts it"),
        pytest.param([command("a", 0)], [], id="RUN of something else"),
    ],
)
def test_the_sandbox_is_started_ahead_for_steps_that_were_not_found(
    store: Store,
    solver: Callable[..., tuple[Solver, list[Any]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    commands: list[AnyNode],
    prepared: list[bool],
) -> None:
    """And only then: what copies alone needs no privilege."""
    started: list[bool] = []
    monkeypatch.setattr(Environment, "prepare_sandbox", lambda self: started.append(True))
    context = write(tmp_path / "context", {"a": "1"})
    nodes: list[AnyNode] = [scratch(), node("a", to="/"), *commands]
    for expected in (prepared, []):  # the second time everything is found
        made, _ = solver(nodes, context=context)
        made.solve([len(nodes) - 1, 1], 1)
        assert started == expected
        started.clear()
