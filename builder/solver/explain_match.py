"""Which step of an earlier build a step is compared with: the same instruction, wherever others were put around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from builder.store.builds import BuiltStep

_STEPS = ("run", "copy", "workdir", "context")


def steps_of(steps: Sequence[BuiltStep], stage: str, platform: str) -> list[BuiltStep]:
    """The steps of a stage that make a layer, in order."""
    return [step for step in steps if step.stage == stage and step.platform == platform and step.kind in _STEPS]


def match(old: Sequence[BuiltStep], new: Sequence[BuiltStep]) -> Mapping[str, BuiltStep]:
    """The old step for each new one of the same stage, by the new one's number. Instructions of the same text belong
    together; between those that do, one that was replaced by one of its kind. What is left is new."""
    found: dict[str, BuiltStep] = {}
    for kept, before, after in _blocks([step.instruction for step in old], [step.instruction for step in new]):
        if kept:
            found.update((step.step, one) for one, step in zip(old[before], new[after], strict=True))
        else:
            found.update(_replaced(list(old[before]), new[after]))
    return found


def _blocks(old: list[str], new: list[str]) -> Iterator[tuple[bool, slice, slice]]:
    """Parts of two lists that belong together: whether they are the same, and where they are. Between the same
    beginning and end there are mostly some lines that have nothing in common; `difflib` is for the rest."""
    shorter = min(len(old), len(new))
    head = next((n for n in range(shorter) if old[n] != new[n]), shorter)
    tail = next((n for n in range(shorter - head) if old[-1 - n] != new[-1 - n]), shorter - head)
    ends = len(old) - tail, len(new) - tail
    yield True, slice(head), slice(head)
    if set(old[head : ends[0]]).isdisjoint(new[head : ends[1]]):
        yield False, slice(head, ends[0]), slice(head, ends[1])
    else:
        from difflib import SequenceMatcher

        for tag, *places in SequenceMatcher(None, old[head : ends[0]], new[head : ends[1]], False).get_opcodes():
            start, end, new_start, new_end = (head + place for place in places)
            yield tag == "equal", slice(start, end), slice(new_start, new_end)
    yield True, slice(ends[0], None), slice(ends[1], None)


def _replaced(old: list[BuiltStep], new: Sequence[BuiltStep]) -> Mapping[str, BuiltStep]:
    """Pairs of the same kind, in order."""
    found: dict[str, BuiltStep] = {}
    for after in new:
        position = next((n for n, before in enumerate(old) if before.kind == after.kind), None)
        if position is not None:
            found[after.step] = old[position]
            del old[: position + 1]
    return found
