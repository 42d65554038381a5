"""Which steps a build had to wait for: the critical path through the graph of its steps, from the measured times.

A step's cost is what the build would have been shorter by, had the step taken no time: nothing for a step that others
outlast. The graph alone decides that. Where steps waited for a free job as well, what a step cost is not known (without
it, others would have begun earlier), and nothing is said of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from builder.store.builds import BuiltStep

WORTH_TELLING = 1.0
"""Seconds: where no step took as long, nothing is said."""
NOTICEABLE = 0.1
"""Seconds: shorter steps are not named."""
_MOST = 4


class CriticalStep(msgspec.Struct, frozen=True):
    """A step of the critical path; `cost` is in seconds, None where it is not known or too little to tell."""

    step: BuiltStep
    cost: float | None


class CriticalPath(msgspec.Struct, frozen=True):
    """The longest chain of steps, in the order in which they ran, and how long it took in seconds. `free` are the other
    steps that took noticeable time, the longest first; `queued` is how long steps waited for a free job, together."""

    steps: tuple[CriticalStep, ...]
    seconds: float
    free: tuple[BuiltStep, ...]
    queued: float

    @property
    def numbers(self) -> frozenset[str]:
        """The steps' numbers."""
        return frozenset(critical.step.step for critical in self.steps)


def critical_path(steps: Sequence[BuiltStep]) -> CriticalPath:
    """The critical path of a build's steps. They come after those that they need, as in its record."""
    graph = {step.step: step for step in steps if step.step}
    longest, before = _longest(graph, "")
    last = max(longest, key=lambda number: longest[number], default="")
    path: list[BuiltStep] = []
    total = longest.get(last, 0.0)
    while last:
        path.append(graph[last])
        last = before[last]
    timed = [step for step in reversed(path) if step.seconds]
    queued = sum(step.queued for step in graph.values() if step.queued >= NOTICEABLE)
    critical = tuple(CriticalStep(step, None if queued else _cost(graph, step, total)) for step in timed)
    numbers = {step.step for step in timed}
    free = [step for step in graph.values() if step.step not in numbers and step.seconds >= NOTICEABLE]
    return CriticalPath(
        critical,
        total,
        tuple(sorted(free, key=lambda step: -step.seconds)),
        queued,
    )


def _cost(graph: dict[str, BuiltStep], step: BuiltStep, total: float) -> float | None:
    if step.seconds < NOTICEABLE:
        return None
    return total - max(_longest(graph, step.step)[0].values())


def _longest(graph: dict[str, BuiltStep], without: str) -> tuple[dict[str, float], dict[str, str]]:
    """Of each step, when it ends if nothing waits but for what it needs, and what it waits for last; the step `without`
    takes no time."""
    ends: dict[str, float] = {}
    before: dict[str, str] = {}
    for number, step in graph.items():
        needs = [need for need in step.needs if need in ends]
        latest = max(needs, key=lambda need: ends[need], default="")
        before[number] = latest
        ends[number] = ends.get(latest, 0.0) + (step.seconds if number != without else 0.0)
    return ends, before


def in_words(path: CriticalPath) -> str:
    """One line for people, '' if no step took a second."""
    if not any(critical.step.seconds >= WORTH_TELLING for critical in path.steps):
        return ""
    least = max(NOTICEABLE, path.seconds / 50)
    told = [critical for critical in path.steps if critical.step.seconds >= least]
    longest = sorted(told, key=lambda critical: -critical.step.seconds)[:_MOST]
    shown = [_told(critical) for critical in told if critical in longest]
    others = len(path.steps) - len(shown)
    if others:
        shown.append(f"{others} more {path.seconds - sum(critical.step.seconds for critical in longest):.1f}s")
    text = f"critical path {path.seconds:.1f}s: {', '.join(shown)}"
    if path.queued >= WORTH_TELLING:
        return f"{text}; steps waited {path.queued:.1f}s for a free job (--jobs)"
    idle = [f"[{step.position}] ({step.seconds:.1f}s)" for step in path.free if step.seconds >= WORTH_TELLING]
    if path.queued or not idle:
        return text
    more = f" and {len(idle) - _MOST} more" if len(idle) > _MOST else ""
    return f"{text}; {', '.join(idle[:_MOST])}{more} cost{'s' if len(idle) == 1 else ''} nothing"


def _told(critical: CriticalStep) -> str:
    step = critical.step
    text = f"[{step.position}] {step.seconds:.1f}s"
    if critical.cost is None or step.seconds - critical.cost < NOTICEABLE:
        return text
    return f"{text} (costs {critical.cost:.1f}s)"
