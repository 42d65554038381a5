"""What caches are made from: the steps that a build found or made, as they travel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from builder.oci.reference import Reference
from builder.progress import Reporter
from builder.solver.cache import StepCache
from builder.solver.cache_records import names_no_parent, place
from builder.store.builds import BuiltStep
from builder.store.records import StepRecord
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.registry.transport import Session
    from builder.solver.secrets import Guard


class SolvedSteps(msgspec.Struct, frozen=True, kw_only=True):
    """What caches are made from. `lineage` is that of the build's steps, `results` the diff IDs of the layers that
    images have above their bases, `pushed` the names under which the build pushed its images; `steps` tell other
    machines why they miss the cache; `guard` keeps the build's secrets out of cache mounts that are written."""

    store: Store
    cache: StepCache
    lineage: str
    results: tuple[str, ...]
    pushed: tuple[Reference, ...] = ()
    steps: tuple[BuiltStep, ...] = ()
    session: Callable[[], Session]
    report: Reporter
    guard: Guard | None = None


def gather(steps: SolvedSteps) -> tuple[list[StepRecord], frozenset[str]]:
    """The records of the build's steps as they travel, and the keys of those that name no parent.

    A step that was found by its parent was looked up no further; what is known of the same place with the same result,
    whatever the parent, comes along.
    """
    database, cache = steps.store.database, steps.cache
    found: dict[str, StepRecord] = {}
    for key in cache.used:
        if (record := database.step(key)) is not None:
            found[key] = record
    for key, record in cache.borrowed.items():
        found.setdefault(key, record)
    free = set(cache.external.free) if cache.external is not None else set()
    for record in list(found.values()):
        for equal in _equal_steps(steps, record):
            if equal.key in free or (equal.recipe and names_no_parent(equal.recipe)):
                found.setdefault(equal.key, equal)
    free.update(key for key, record in found.items() if record.recipe and names_no_parent(record.recipe))
    travelling = [
        msgspec.structs.replace(record, lineage=place(record.lineage, steps.lineage)) for record in found.values()
    ]
    return travelling, frozenset(free.intersection(found))


def _equal_steps(steps: SolvedSteps, record: StepRecord) -> list[StepRecord]:
    found = steps.store.database.equal_steps(record.lineage, record.diff_id)
    if steps.cache.external is not None:
        found += steps.cache.external.equal_steps(record.lineage, record.diff_id)
    return found
