"""Why the steps of a build ran: its record, against that of the build that it was compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from builder.errors import StoreError, UsageError
from builder.progress import Reason
from builder.solver.explain import Explainer
from builder.solver.explain_earlier import Earlier
from builder.solver.explain_recipes import Difference
from builder.solver.keys import Recipe
from builder.store.builds import Build, BuiltStep
from builder.store.store import Store


class ExplainedStep(msgspec.Struct, frozen=True):
    """A step and what is known of it: the step of an earlier build that it was compared with (`then`, of the build
    `previous`), what differs, and both recipes (None where they are no longer known)."""

    step: BuiltStep
    previous: Build | None = None
    then: BuiltStep | None = None
    differences: tuple[Difference, ...] = ()
    old: Recipe | None = None
    new: Recipe | None = None


class Explanation(msgspec.Struct, frozen=True):
    """A build and all of its steps, or (`of_step`) the one that was named."""

    build: Build
    steps: tuple[ExplainedStep, ...]
    of_step: bool = False


def explain(store: Store, build_name: str = "", step_name: str = "") -> Explanation:
    """Explain a build (by default the newest), or one of its steps. A single name that no build has, or a number of up
    to three digits, is a step's of the newest build. Raises StoreError, UsageError."""
    if build_name.isdecimal() and len(build_name) <= 3 and not step_name:
        build_name, step_name = "", build_name
    try:
        build = store.builds.find(build_name)
    except StoreError:
        newest = store.builds.find()
        if step_name or not _candidates(newest.steps, build_name):
            raise
        build, step_name = newest, build_name
    steps = [find_step(build, step_name)] if step_name else list(build.steps)
    return Explanation(build, tuple(_explained(store, build, steps)), bool(step_name))


def find_step(build: Build, name: str) -> BuiltStep:
    """A step by its place (`build 2/5`, `build 2`, `2/5`, `2`), its line (`:7`) or a part of its text, if that is one
    step only. Raises UsageError."""
    found = _candidates(build.steps, name)
    if len(found) == 1:
        return found[0]
    known = found or [step for step in build.steps if step.step and step.kind != "scratch"]
    raise UsageError(
        f"{name!r} means several steps" if found else f"build {build.build} has no step {name!r}",
        remedy="name one of: " + ", ".join(repr(step.position) for step in known[:20]),
    )


def _candidates(steps: Iterable[BuiltStep], name: str) -> list[BuiltStep]:
    steps = [step for step in steps if step.step]
    wanted = " ".join(name.lower().replace(":", " ").split())
    for fits in (
        lambda step: step.position == name,
        lambda step: name.startswith(":") and name[1:] == str(step.line),
        lambda step: wanted in _places(step),
        lambda step: name.lower() in step.instruction.lower(),
    ):
        found = [step for step in steps if fits(step)]
        if found:
            return found
    return []


def _places(step: BuiltStep) -> set[str]:
    """The shorter names of a step's place, in lower case."""
    place = " ".join(step.position.lower().split())
    number, _, total = place.rpartition(" ")[2].partition("/")
    stage = step.stage.lower()
    return {place, f"{stage} {number}/{total}", f"{stage} {number}", f"{number}/{total}", number}


def _explained(store: Store, build: Build, steps: Sequence[BuiltStep]) -> Iterable[ExplainedStep]:
    explainer = Explainer(
        store.database, store.builds, build.project, lambda: build.steps, store.layers.available, before=build.started
    )
    for step in steps:
        earlier = _compared_with(store, step)
        if earlier is None:
            yield ExplainedStep(step, new=explainer.recipe(step))
            continue
        differences = explainer.differences(step, earlier)
        if differences and step.reason is not None and differences[0].kind == step.reason.kind:
            differences[0] = msgspec.structs.replace(differences[0], step=step.reason.step)  # known while it ran
        yield ExplainedStep(
            step,
            earlier.build,
            earlier.step,
            tuple(differences),
            explainer.recipe(earlier.step),
            explainer.recipe(step),
        )


def _compared_with(store: Store, step: BuiltStep) -> Earlier | None:
    """What the step was compared with when it ran, if that is still recorded."""
    if not step.previous_build:
        return None
    try:
        build = store.builds.find(step.previous_build)
    except (StoreError, UsageError):
        return None
    then = build.step(step.previous_step)
    return Earlier(build, then) if then is not None else None


def document(explanation: Explanation, *, recipes: bool) -> dict[str, Any]:
    """The explanation as plain data, for JSON: with `recipes` the two of each step as well."""
    build = explanation.build
    return {
        "build": build.build,
        "started": build.started,
        "seconds": build.seconds,
        "outcome": build.outcome,
        **({"error": build.error} if build.error else {}),
        "context": build.context,
        "dockerfile": build.dockerfile,
        "names": list(build.names),
        "steps": [_step_document(step, recipes) for step in explanation.steps],
    }


def _step_document(explained: ExplainedStep, recipes: bool) -> dict[str, Any]:
    step = explained.step
    document: dict[str, Any] = {
        "step": step.step,
        "position": step.position,
        "stage": step.stage,
        "platform": step.platform,
        "kind": step.kind,
        "instruction": step.instruction,
        "line": step.line,
        "outcome": step.outcome,
        "seconds": step.seconds,
        "reason": _reason_document(step.reason),
    }
    if explained.previous is not None and explained.then is not None:
        document["compared_with"] = {"build": explained.previous.build, "step": explained.then.step}
        document["differences"] = msgspec.to_builtins(explained.differences)
    if recipes:
        document["recipes"] = {"then": explained.old, "now": explained.new}
    return document


def _reason_document(reason: Reason | None) -> dict[str, str] | None:
    return msgspec.to_builtins(reason) if reason is not None else None
