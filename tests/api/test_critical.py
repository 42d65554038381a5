"""The critical path: what a build had to wait for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.api.critical import critical_path, in_words
from builder.store.builds import RAN, BuiltStep


def step(number: int, seconds: float, *needs: int, queued: float = 0.0, name: str = "") -> BuiltStep:
    return BuiltStep(
        step=str(number),
        kind="run",
        name=f"[{name or number}] RUN x",
        stage="s",
        instruction="RUN x",
        needs=tuple(map(str, needs)),
        outcome=RAN,
        started=1.0,
        queued=queued,
        seconds=seconds,
    )


# two chains side by side, 0 → 1 (41 s) and 0 → 2 (12 s), that meet in 3
DIAMOND = [step(0, 2.0), step(1, 41.0, 0, name="build 4/6"), step(2, 12.0, 0, name="test 3/3"), step(3, 1.5, 1, 2)]


def test_two_chains() -> None:
    found = critical_path(DIAMOND)
    assert [one.step.step for one in found.steps] == ["0", "1", "3"]
    assert [one.cost for one in found.steps] == pytest.approx([2.0, 29.0, 1.5])
    assert found.seconds == pytest.approx(44.5)
    assert [one.step for one in found.free] == ["2"]
    assert in_words(found) == (
        "critical path 44.5s: [0] 2.0s, [build 4/6] 41.0s (costs 29.0s), [3] 1.5s; [test 3/3] (12.0s) costs nothing"
    )


def test_little_is_said_of_little() -> None:
    assert in_words(critical_path([])) == ""
    assert in_words(critical_path([step(0, 0.6), step(1, 0.7, 0)])) == ""
    assert in_words(critical_path([step(0, 1.04)])) == "critical path 1.0s: [0] 1.0s"


def test_the_longest_are_named() -> None:
    steps = [step(0, 1.0), *(step(number, number + 1.0, number - 1) for number in range(1, 8))]
    assert in_words(critical_path(steps)) == "critical path 36.0s: [4] 5.0s, [5] 6.0s, [6] 7.0s, [7] 8.0s, 4 more 10.0s"


def test_nothing_is_called_free_where_steps_waited_for_each_other() -> None:
    steps = [step(0, 10.0), step(1, 5.0), step(2, 2.0, queued=5.0)]
    assert in_words(critical_path(steps)) == "critical path 10.0s: [0] 10.0s; steps waited 5.0s for a free job (--jobs)"
    steps = [step(0, 10.0), step(1, 5.0), step(2, 2.0, queued=0.5)]
    assert in_words(critical_path(steps)) == "critical path 10.0s: [0] 10.0s"


def test_what_was_left_out_has_no_part() -> None:
    left_out = BuiltStep(name="[x] RUN y", stage="x", instruction="RUN y", outcome="not needed")
    assert critical_path([*DIAMOND, left_out]) == critical_path(DIAMOND)


@st.composite
def graphs(draw: st.DrawFn) -> list[BuiltStep]:
    count = draw(st.integers(1, 9))
    found = []
    for number in range(count):
        needs = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        found.append(step(number, draw(st.sampled_from([0.0, 0.05, 0.2, 1.0, 2.5, 7.0])), *sorted(needs)))
    return found


def longest(steps: list[BuiltStep]) -> float:
    """The length of the longest chain, by trying all of them."""
    by_number = {one.step: one for one in steps}

    def until(one: BuiltStep) -> float:
        return one.seconds + max((until(by_number[need]) for need in one.needs), default=0.0)

    return max(until(one) for one in steps)


@given(graphs())
def test_a_step_costs_what_the_build_would_be_shorter_by(steps: list[BuiltStep]) -> None:
    import msgspec

    found = critical_path(steps)
    assert found.seconds == pytest.approx(longest(steps))
    assert sum(one.step.seconds for one in found.steps) == pytest.approx(found.seconds)
    costs = {one.step.step: one.cost for one in found.steps}
    for one in steps:
        without = [msgspec.structs.replace(other, seconds=0.0) if other is one else other for other in steps]
        saved = longest(steps) - longest(without)
        if one.step not in costs:
            assert saved == pytest.approx(0.0)
        elif one.seconds >= 0.1:
            assert costs[one.step] == pytest.approx(saved)
