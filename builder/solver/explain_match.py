"""Which step of an earlier build a step is compared with: the same instruction, wherever others were put around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from builder.store.builds import BuiltStep

_STEPS = ("run", "copy", "workdir", "context")


def steps_of(steps: Sequence[BuiltStep], stage: str, platform: str) -> list[BuiltStep]:
    """The steps of a stage that make a layer, in order."""
    return [step for step in steps if step.stage == stage and step.platform == platform and step.kind in _STEPS]


def match(old: Sequence[BuiltStep], new: Sequence[BuiltStep]) -> Mapping[str, BuiltStep]:
    """The old step for each new one of the same stage, by the new one's number. Instructions of the same text belong
    together; between those that do, one that was replaced by one of its kind. What is left is new."""
    matcher = SequenceMatcher(None, [step.instruction for step in old], [step.instruction for step in new], False)
    found: dict[str, BuiltStep] = {}
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        if tag == "equal":
            pairs = zip(old[start:end], new[new_start:new_end], strict=True)
            found.update((after.step, before) for before, after in pairs)
        elif tag == "replace":
            found.update(_replaced(list(old[start:end]), new[new_start:new_end]))
    return found


def _replaced(old: list[BuiltStep], new: Sequence[BuiltStep]) -> Mapping[str, BuiltStep]:
    """Pairs of the same kind, in order."""
    found: dict[str, BuiltStep] = {}
    for after in new:
        position = next((n for n, before in enumerate(old) if before.kind == after.kind), None)
        if position is not None:
            found[after.step] = old[position]
            del old[: position + 1]
    return found
