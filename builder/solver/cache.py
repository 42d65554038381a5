"""The step cache: from a key to the layer that the step made, and each step made only once at a time.

Two builds that come to the same step, in two threads or two processes, run it once: the second waits for the first
and then finds its result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from builder.solver.keys import Recipe, encode, key_of
from builder.store.database import StepRecord
from builder.store.store import Store


class Made(msgspec.Struct, frozen=True):
    """A step's result: the diff ID of its layer, when it was made (seconds since the epoch), whether it was cached."""

    diff_id: str
    created: float
    cached: bool = False


class StepCache:
    """The steps that a store remembers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def look_up(self, recipe: Recipe, *, lineage: str | None = None) -> Made | None:
        """The result of a step with this recipe, if its layer is still here or can be fetched.

        With `lineage` only a result of that place in that Dockerfile counts.
        """
        record = self._store.database.step(key_of(recipe))
        if record is None or not self._store.layers.available(record.diff_id):
            return None
        if lineage is not None and record.lineage != lineage:
            return None
        return Made(record.diff_id, record.created, cached=True)

    def remember(self, recipe: Recipe, made: Made, lineage: str) -> None:
        """Keep a result under its recipe. `lineage` names the place in the Dockerfile, to compare a later miss with."""
        self._store.database.add_step(StepRecord(key_of(recipe), made.diff_id, encode(recipe), lineage, made.created))

    @contextmanager
    def alone(self, recipe: Recipe) -> Iterator[None]:
        """Hold the step's lock, among all builds. Look again inside: someone else may just have made it."""
        with self._store.lock(f"step-{key_of(recipe)}"):
            yield


def now(epoch: int | None) -> float:
    """The time of what a build makes: SOURCE_DATE_EPOCH where it is set."""
    return time.time() if epoch is None else float(epoch)
