"""The step cache: from a key to the layer that the step made, and each step made only once at a time.

Two builds that come to the same step, in two threads or two processes, run it once: the second waits for the first
and then finds its result.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec

from builder.solver.keys import Recipe, encode, key_of, key_of_encoded
from builder.store.records import StepRecord
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.filesystem.locks import Wait
    from builder.solver.external import External


class Made(msgspec.Struct, frozen=True):
    """A step's result: the diff ID of its layer, when it was made (seconds since the epoch), whether it was cached, and
    if so, whether only a cache that the build names says so (`external`)."""

    diff_id: str
    created: float
    cached: bool = False
    external: bool = False


class StepCache:
    """The steps that a store remembers, and those that the caches know which a build names (`external`).

    `used` are the keys of what was found or made, by which a cache can be written. What is found in a cache is no step
    of the store: it is `borrowed` for this build, and kept nowhere.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.external: External | None = None
        self.used: set[str] = set()
        self.borrowed: dict[str, StepRecord] = {}

    def look_up(self, recipe: Recipe, *, lineage: str | None = None) -> Made | None:
        """The result of a step with this recipe, if its layer is still here or can be fetched.

        With `lineage` only a result of that place in that Dockerfile counts.
        """
        return self.find(key_of(recipe), lineage=lineage)

    def find(self, key: str, *, lineage: str | None = None) -> Made | None:
        """The same by the recipe's key."""
        result = self._store.database.result(key)
        if (
            result is not None
            and self._store.layers.available(result.diff_id)
            and (lineage is None or result.lineage == lineage)
        ):
            self.used.add(key)
            return Made(result.diff_id, result.created, cached=True)
        borrowed = self.external.find(self._store, key, lineage) if self.external is not None else None
        if borrowed is None:
            return None
        self.borrowed[key] = borrowed
        return Made(borrowed.diff_id, borrowed.created, cached=True, external=True)

    def remember(self, recipe: Recipe, made: Made, lineage: str, *, content: str = "") -> None:
        """Keep a result under its recipe. `lineage` names the place in the Dockerfile; `content` is the key of the
        recipe that says file by file what this one says in short."""
        data = encode(recipe)
        self.remember_encoded(key_of_encoded(data), data, made, lineage, content=content)

    def remember_encoded(self, key: str, data: bytes, made: Made, lineage: str, *, content: str = "") -> None:
        """The same by a recipe's key, and what `encode` made of it."""
        record = StepRecord(key, made.diff_id, data, lineage, made.created)
        if made.external:
            self.borrowed[record.key] = record
            return
        self._store.database.add_step(record, content)
        self.used.add(record.key)

    def fetch(self, diff_ids: Sequence[str]) -> None:
        """Have these layers here, also those that only the build's caches hold. Raises MissingLayer."""
        from builder.solver.external import fetch_layers

        fetch_layers(self._store, diff_ids)

    def do_without(self, diff_ids: Sequence[str]) -> bool:
        """Take no longer from the build's caches that a step gives one of these layers. Whether they had said so."""
        self.borrowed = {key: record for key, record in self.borrowed.items() if record.diff_id not in diff_ids}
        return self.external is not None and self.external.refuse(diff_ids)

    def hold(self, key: str, wait: Wait) -> AbstractContextManager[bool]:
        """Hold the lock of a recipe's key, among all builds. Look again inside: someone else may just have made it.
        `wait` is called between looks while another holds it."""
        return self._store.step_locks.exclusive(key, wait)


def now(epoch: int | None) -> float:
    """The time of what a build makes: SOURCE_DATE_EPOCH where it is set."""
    return time.time() if epoch is None else float(epoch)


def now_ns(epoch: int | None) -> int:
    """The same in nanoseconds, as files have it."""
    return int(now(epoch) * 1_000_000_000)
