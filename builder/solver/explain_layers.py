"""Layers by the steps that made them: what it means that a root file system is another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builder.solver.explain_recipes import Difference
from builder.store.builds import BuiltStep


def owners_of(steps: Mapping[str, BuiltStep], top: str) -> list[BuiltStep]:
    """The step or image that each layer of a root file system comes from, lowest first."""
    found: list[BuiltStep] = []
    number = top
    while number in steps:
        step = steps[number]
        count = len(step.layers) if step.kind == "image" else 0 if step.kind == "scratch" else 1
        found += [step] * count
        if step.kind in ("image", "scratch", "context") or not step.needs:
            break
        number = step.needs[0]
    return found[::-1]


def base_of(owners: Sequence[BuiltStep]) -> BuiltStep | None:
    return owners[0] if owners and owners[0].kind == "image" else None


def layers_of(owners: Sequence[BuiltStep]) -> list[str]:
    """The layers of a root file system by those that they come from."""
    distinct = [step for n, step in enumerate(owners) if n == 0 or owners[n - 1] is not step]
    return [layer for step in distinct for layer in step.layers]


def changed_base(then: BuiltStep | None, now: BuiltStep | None) -> Difference:
    old, new = (known.reference if known is not None else "scratch" for known in (then, now))
    digests = [known.digest if known is not None else "" for known in (then, now)]
    if old == new:
        return Difference(kind="base", text="base image updated", subject=new, old=digests[0], new=digests[1])
    return Difference(kind="base", text=f"base image: {old} → {new}", subject=new, old=old, new=new)


def last(layers: Sequence[str]) -> str:
    return layers[-1] if layers else ""
