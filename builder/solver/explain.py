"""Why a step was not taken from the cache: what it was looked up by, against what it had in an earlier build.

A reason is right or absent. It is right because it names a difference between two recipes, and a recipe is all that a
key is made of; or a state of the store that was looked at (nothing was built before, the record is gone). Where neither
is known, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from builder.progress import Reason
from builder.solver.explain_decode import decode_both
from builder.solver.explain_earlier import Earlier, EarlierSteps, History, has_step
from builder.solver.explain_files import told_first
from builder.solver.explain_layers import base_of, changed_base, last, layers_of, owners_of
from builder.solver.explain_recipes import Below, Difference, Part, compare
from builder.solver.keys import KEYS, Recipe
from builder.solver.trace import Origin
from builder.store.builds import ELSEWHERE, FAILED, STOPPED, BuiltStep
from builder.store.records import RecipeRecord, StepRecord

_STEP = "step"


class Records(Protocol):
    """Where the recipes and results of steps are asked for: the store's database."""

    def recipe(self, key: str) -> RecipeRecord | None: ...

    def result(self, key: str) -> StepRecord | None: ...


class Explainer:
    """Compares the steps of one build with builds before it: those that `EarlierSteps` finds. `is_here` says whether a
    layer can be had."""

    def __init__(
        self,
        records: Records,
        builds: History,
        project: str,
        steps: Callable[[], Sequence[BuiltStep]],
        is_here: Callable[[str], bool],
        before: float | None = None,
    ) -> None:
        self._records = records
        self._steps = steps
        self._is_here = is_here
        self._earlier = EarlierSteps(builds, project, steps, before)

    # --- the reason

    def reason(
        self, step: BuiltStep, recipe: bytes | None, origin: Origin | None = None
    ) -> tuple[Reason | None, Earlier | None]:
        """Why a step with this recipe (encoded; by content where it has one) was not found, and what it was compared
        with. `origin` tells of files of a stage where they come from."""
        earlier = self._earlier.find(step)
        if isinstance(earlier, Reason):
            return earlier, None
        if earlier is None:
            return None, None
        same = self._unchanged(step, earlier)
        if same is not None:
            return same if same.text else None, earlier
        if earlier.build.keys != KEYS:
            return Reason("version", "cache keys changed with the builder's version"), earlier
        found = self.differences(step, earlier, recipe, origin)
        return (_reason(found) if found else None), earlier

    def _unchanged(self, step: BuiltStep, earlier: Earlier) -> Reason | None:
        """Why a step was not found that is the same as before; one without a text if that is not known. None if it is
        not the same."""
        old = earlier.step
        content = self._content(old)
        if old.key != step.key and not (step.content and content == step.content):
            return None
        if earlier.build.build.startswith(ELSEWHERE):
            return Reason("", "")  # what became of the result there is not known
        if old.outcome == FAILED:
            return Reason("failed", "failed last time")
        if old.outcome == STOPPED:
            return Reason("stopped", "was interrupted last time")
        result = self._records.result(old.key) or (self._records.result(content) if content else None)
        if result is None and old.external:
            return Reason("elsewhere", "last time its result came from another cache")
        if result is None:
            return Reason("pruned", "cache was pruned")
        if not self._is_here(result.diff_id):
            return Reason("lost", "its layer is no longer in the store")
        return Reason("", "")

    def _content(self, step: BuiltStep) -> str:
        """The key of a step's recipe by content, '' where it has none."""
        if step.content:
            return step.content
        record = self._records.recipe(step.key) if step.key else None
        return record.content if record is not None else ""

    # --- the differences

    def differences(
        self, step: BuiltStep, earlier: Earlier, recipe: bytes | None = None, origin: Origin | None = None
    ) -> list[Difference]:
        """All that differs, the most telling first; [] where the recipes are not known."""
        before = self._encoded_recipe(earlier.step)
        after = recipe if recipe is not None else self._encoded_recipe(step)
        if before is None or after is None:
            return []
        old, new = decode_both(before, after)
        below = self._below(step, earlier)
        found = compare(earlier.step, step, old, new, below, self._part(step, earlier.step))
        if origin is None or len(step.needs) < 2:
            return found
        return [self._made_by(one, step, origin) if one.kind == "files" else one for one in found]

    def _made_by(self, difference: Difference, step: BuiltStep, origin: Origin) -> Difference:
        """The difference between files of a stage, with the step of that stage which made the first of them."""
        path = told_first(difference.files).path.partition(":")[2].strip("/") if difference.files else ""
        layer = origin(path) if path else None
        here = {known.step: known for known in self._steps()}
        owners = owners_of(here, step.needs[1])
        made_by = next((owner.step for owner in reversed(owners) if layer in owner.layers), "")
        return msgspec.structs.replace(difference, step=made_by)

    def recipe(self, step: BuiltStep) -> Recipe | None:
        """A step's recipe, by content if it is known."""
        encoded = self._encoded_recipe(step)
        return msgspec.json.decode(encoded) if encoded is not None else None

    def _encoded_recipe(self, step: BuiltStep) -> bytes | None:
        for key in (self._content(step), step.key):
            record = self._records.recipe(key) if key else None
            if record is not None:
                return record.recipe
        return None

    def _part(self, step: BuiltStep, old: BuiltStep) -> Part:
        """How what mounts show of contexts differs: by the recipes of the layers that hold it."""

        def compare_parts(source: str) -> Difference | None:
            for name, key in step.parts.items():
                if not name.endswith(f":{source}") or name not in old.parts:
                    continue
                one, two = (self._by_content(part) for part in (old.parts[name], key))
                if one is None or two is None:
                    return None
                written = source.strip("/") or "."
                mounted = BuiltStep(name="", stage="", instruction="", outcome="", sources=(written,))
                nothing = self._below(step, None)
                return next(iter(compare(mounted, mounted, one, two, nothing, lambda _: None)), None)
            return None

        return compare_parts

    def _by_content(self, key: str) -> Recipe | None:
        record = self._records.recipe(key)
        if record is not None and record.content:
            record = self._records.recipe(record.content)
        return msgspec.json.decode(record.recipe) if record is not None else None

    def _below(self, step: BuiltStep, earlier: Earlier | None) -> Below:
        """How the layers differ that a step stands on or looks into: which step or image they come from."""

        def compare_layers(position: int, old: Sequence[str], new: Sequence[str]) -> Difference:
            unknown = Difference(kind=_STEP, text="the layers below changed", old=last(old), new=last(new))
            if earlier is None or position >= len(step.needs) or position >= len(earlier.step.needs):
                return unknown
            here = {known.step: known for known in self._steps()}
            there = {known.step: known for known in earlier.build.steps}
            new_owners = owners_of(here, step.needs[position])
            old_owners = owners_of(there, earlier.step.needs[position])
            if layers_of(new_owners) != list(new) or layers_of(old_owners) != list(old):
                return unknown
            first = next((n for n, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), None)
            at = first if first is not None else min(len(old), len(new))
            now = new_owners[at] if at < len(new_owners) else None
            then = old_owners[at] if at < len(old_owners) else None
            if "image" in (now.kind if now is not None else "", then.kind if then is not None else ""):
                return changed_base(base_of(old_owners), base_of(new_owners))
            return self._changed_below(step, earlier, then, now) or unknown

        return compare_layers

    def _changed_below(
        self, step: BuiltStep, earlier: Earlier, then: BuiltStep | None, now: BuiltStep | None
    ) -> Difference | None:
        """What it means that one layer, which was made by the step `then`, is now made by the step `now`."""
        if now is not None:
            before = self._earlier.match(earlier.build, now).get(now.step)
            where = f"step {now.position}" if now.stage != step.stage else f"step {now.position.rpartition(' ')[2]}"
        if now is None or before is None or then is None or then.step != before.step:
            if then is not None and not has_step(self._steps(), then):
                text = f"an earlier step is gone: {then.instruction}"
                return Difference(kind="removed", text=text, subject=then.position, old=then.instruction)
            if now is not None and before is None and not has_step(earlier.build.steps, now):
                return Difference(kind=_STEP, text=f"{where} is new", subject=now.position, step=now.step)
            return Difference(kind="order", text="the order of earlier steps changed")
        cause = self._cause(now, Earlier(earlier.build, before))
        text = f"{where} made something else"
        return Difference(
            kind=_STEP,
            text=f"{text}: {cause}" if cause else text,
            subject=now.position,
            old=last(before.layers),
            new=last(now.layers),
            step=now.step,
        )

    def _cause(self, step: BuiltStep, earlier: Earlier) -> str:
        """In a few words, why a step made something else than in an earlier build; '' where that is not known."""
        known = step.previous_build == earlier.build.build or (
            step.reason is not None and step.reason.kind == "no-cache"
        )
        if step.reason is not None and known:
            return step.reason.text.partition(" made something else: ")[2] or step.reason.text
        found = self.differences(step, earlier)
        if not found:
            return ""
        text = _reason(found).text
        return text.partition(" made something else: ")[2] or text


def _reason(found: Sequence[Difference]) -> Reason:
    """The first difference as the reason; how many there are beside it."""
    first, rest = found[0], len(found) - 1
    text = first.text + (f", and {rest} more {'change' if rest == 1 else 'changes'}" if rest else "")
    return Reason(first.kind, text, first.step)
