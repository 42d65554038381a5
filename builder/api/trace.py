"""A build's record as a Chrome trace: what chrome://tracing, Perfetto and speedscope show.

The format is that of the document "Trace Event Format", as an object with `traceEvents`: metadata events (`M`) name
processes and threads, complete events (`X`) have a beginning and a duration in microseconds, flow events (`s` and `f`)
lead from a step to those that are made from it. Steps, transfers and other work are a process each; what overlaps is
on threads of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from builder.api.critical import critical_path
from builder.store.builds import Build, BuiltStep, Span

_STEPS, _WORK, _TRANSFERS = 1, 2, 3
_PROCESSES = {_STEPS: "steps", _WORK: "outputs and other work", _TRANSFERS: "transfers"}


class _Timed(msgspec.Struct, frozen=True):
    """Something with a time; `step` is its number if it is one."""

    name: str
    started: float
    seconds: float
    category: str
    told: dict[str, Any]
    step: str = ""


def trace_of(build: Build) -> bytes:
    """The trace, as JSON."""
    document = {
        "traceEvents": list(_events(build)),
        "displayTimeUnit": "ms",
        "otherData": {
            "build": build.build,
            "names": ", ".join(build.names),
            "outcome": build.outcome,
            "version": build.version,
        },
    }
    return msgspec.json.encode(document)


def _events(build: Build) -> Iterator[dict[str, Any]]:
    critical = critical_path(build.steps).numbers
    rows = {
        _STEPS: [_step(step, critical) for step in build.steps if step.started],
        _WORK: [_span(span) for span in build.spans if not span.transfer],
        _TRANSFERS: [_span(span) for span in build.spans if span.transfer],
    }
    threads: dict[str, tuple[int, _Timed]] = {}
    for process, timed in rows.items():
        if not timed:
            continue
        yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": _PROCESSES[process]}}
        yield {"ph": "M", "name": "process_sort_index", "pid": process, "args": {"sort_index": process}}
        for one, thread in lanes(timed):
            if one.step:
                threads[one.step] = (thread, one)
            yield {
                "ph": "X",
                "name": one.name,
                "cat": one.category,
                "pid": process,
                "tid": thread,
                "ts": _microseconds(one.started - build.started),
                "dur": _microseconds(one.seconds),
                "args": one.told,
            }
    yield from _flows(build, threads)


def _step(step: BuiltStep, critical: Iterable[str]) -> _Timed:
    told: dict[str, Any] = {"instruction": step.instruction, "outcome": step.outcome, "queued": round(step.queued, 6)}
    if step.line:
        told["line"] = step.line
    if step.reason is not None:
        told["because"] = step.reason.text
    if step.error:
        told["error"] = step.error
    told["critical"] = step.step in critical
    return _Timed(step.name, step.started, step.seconds, step.outcome, told, step.step)


def _span(span: Span) -> _Timed:
    told: dict[str, Any] = {"bytes": span.size} if span.size >= 0 else {}
    if span.outcome:
        told["outcome"] = span.outcome
    return _Timed(span.name, span.started, span.seconds, "transfer" if span.transfer else "work", told)


def lanes(timed: Iterable[_Timed]) -> Iterator[tuple[_Timed, int]]:
    """Each with the number of a thread, from 1, on which nothing else runs meanwhile."""
    free_at: list[float] = []
    for one in sorted(timed, key=lambda one: one.started):
        lane = next((number for number, end in enumerate(free_at) if end <= one.started), len(free_at))
        if lane == len(free_at):
            free_at.append(0.0)
        free_at[lane] = one.started + one.seconds
        yield one, lane + 1


def _flows(build: Build, threads: dict[str, tuple[int, _Timed]]) -> Iterator[dict[str, Any]]:
    number = 0
    for step in build.steps:
        for need in step.needs:
            if need not in threads or step.step not in threads:
                continue
            number += 1
            for phase, (thread, one) in (("s", threads[need]), ("f", threads[step.step])):
                at = one.started if phase == "f" else one.started + one.seconds
                yield {
                    "ph": phase,
                    "id": number,
                    "name": "needs",
                    "cat": "needs",
                    "pid": _STEPS,
                    "tid": thread,
                    "ts": _microseconds(at - build.started),
                    **({"bp": "e"} if phase == "f" else {}),
                }


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 1)
