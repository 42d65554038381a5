"""Which step of which earlier build a step is compared with.

It is that of the newest earlier build of the same Dockerfile and context that came as far as this step. The step is
found there by its stage, platform and text, so that an instruction put in above it does not make it another one.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from builder.progress import Reason
from builder.solver.explain_match import match, steps_of
from builder.store.builds import Build, BuiltStep


class History(Protocol):
    """Where earlier builds are asked for: those of a project, the newest first, and whether none was dropped."""

    def of(self, project: str) -> Iterator[Build]: ...

    def is_complete(self) -> bool: ...


class Earlier(msgspec.Struct, frozen=True):
    """The step of an earlier build that a step is compared with."""

    build: Build
    step: BuiltStep


class EarlierSteps:
    """Looks for the steps of one build, `steps` by number as far as they are known, in builds before it. With `before`
    only builds count that began earlier, in seconds since the epoch. For any number of threads."""

    def __init__(
        self, builds: History, project: str, steps: Callable[[], Sequence[BuiltStep]], before: float | None = None
    ) -> None:
        self._builds = builds
        self._project = project
        self._steps = steps
        self._before = before
        self._lock = threading.Lock()
        self._seen: list[Build] = []  # of those before this one, as far as anybody asked
        self._unseen: Iterator[Build] | None = None
        self._matched: dict[tuple[str, str, str], Mapping[str, BuiltStep]] = {}

    def find(self, step: BuiltStep) -> Earlier | Reason | None:
        """The step to compare with, or why there is none."""
        seen_project = seen_stage = False
        for build in self._builds_before():
            if not steps_of(build.steps, step.stage, step.platform):
                seen_project = seen_project or bool(build.steps)
                continue
            seen_project = seen_stage = True
            found = self.match(build, step).get(step.step)
            if found is None:
                return Reason("new", "moved instruction" if has_step(build.steps, step) else "new instruction")
            if found.key:
                return Earlier(build, found)
        if not self._builds.is_complete():
            return None
        if not seen_project:
            return Reason("first", "first build")
        if not seen_stage:
            return Reason("first", f"first build of stage {step.stage}")
        return Reason("first", "first run: no earlier build came this far")

    def _builds_before(self) -> Iterator[Build]:
        """Each is read when it is asked for, once: most steps are compared with the newest one."""
        for number in itertools.count():
            with self._lock:
                if self._unseen is None:
                    self._unseen = self._builds.of(self._project)
                while number == len(self._seen):
                    build = next(self._unseen, None)
                    if build is None:
                        return
                    if self._before is None or build.started < self._before:
                        self._seen.append(build)
            yield self._seen[number]

    def match(self, build: Build, step: BuiltStep) -> Mapping[str, BuiltStep]:
        """By number, which step of an earlier build each step is that stands in the same stage as this one."""
        place = (build.build, step.stage, step.platform)
        with self._lock:
            if place not in self._matched:
                old = steps_of(build.steps, step.stage, step.platform)
                self._matched[place] = match(old, steps_of(self._steps(), step.stage, step.platform))
            return self._matched[place]


def has_step(steps: Sequence[BuiltStep], wanted: BuiltStep) -> bool:
    """Whether one of these steps is the same instruction of the same stage."""
    return any(
        (step.stage, step.platform, step.instruction) == (wanted.stage, wanted.platform, wanted.instruction)
        for step in steps
    )
