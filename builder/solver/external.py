"""What the caches that a build names know: steps with their results, layers that can be fetched, cache mounts.

It stands beside the store's own step cache for the time of one build and never becomes a part of it: a cache is trusted
by the builds that name it, not by the others that share the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from builder.errors import BuilderError
from builder.oci.spec import Descriptor
from builder.solver.cache_records import Document, place
from builder.solver.keys import KEYS
from builder.store.builds import DONE, ELSEWHERE, Build, BuiltStep
from builder.store.layers import MissingLayer
from builder.store.records import RecipeRecord, StepRecord

if TYPE_CHECKING:
    from builder.store.store import Store

_JOBS = 4  # layers fetched at once


class Offer(msgspec.Struct, frozen=True):
    """A blob that a cache has: its descriptor, and where it is fetched from (a reference, or `oci-layout:PATH`)."""

    descriptor: Descriptor
    origin: str


class MountOffer(msgspec.Struct, frozen=True):
    """A cache mount that a cache has: the id that `RUN --mount` gives, and its blob, a zstd tar."""

    id: str
    offer: Offer


class External:
    """The caches of one build, whose steps have this `lineage`. `mounts` are by the names of their directories."""

    def __init__(self, lineage: str) -> None:
        self._lineage = lineage
        self.mounts: dict[str, MountOffer] = {}
        self.free: set[str] = set()  # keys of records that name no parent
        self._records: dict[str, list[StepRecord]] = {}
        self._offers: dict[str, list[Offer]] = {}
        self._refused: set[str] = set()
        self.builds: list[Build] = []  # what those who wrote the caches built, to compare a miss with
        self.is_complete = True  # whether all caches tell of that: inline ones, and those without recipes, do not

    def add(
        self, document: Document, layers: Iterable[tuple[str, Offer]], mounts: Iterable[tuple[str, MountOffer]]
    ) -> None:
        """Add a cache: what it says, and what it has by diff ID and by mount name. What caches before it say counts
        more."""
        for record in document.records:
            self._records.setdefault(record.key, []).append(record)
        self.free.update(document.free)
        if document.steps:
            self.builds.append(_build_of(document.steps, f"{ELSEWHERE}{len(self.builds) + 1}"))
        elif document.records:
            self.is_complete = False
        for diff_id, offer in layers:
            known = self._offers.setdefault(diff_id, [])
            if offer not in known:
                known.append(offer)
        for name, mount in mounts:
            self.mounts.setdefault(name, mount)

    def find(self, store: Store, key: str, lineage: str | None) -> StepRecord | None:
        """A step's result: one whose layer is here or can be fetched before one whose layer nobody has; never one whose
        layer was refused. The layer can then be asked of the store like any other."""
        absent = None
        wanted = None if lineage is None else place(lineage, self._lineage)
        for record in self._records.get(key, ()):
            if wanted is not None and record.lineage != wanted:
                continue
            if self._available(store, record.diff_id):
                return record
            if absent is None and record.diff_id not in self._refused:
                absent = record
        return absent

    def _available(self, store: Store, diff_id: str) -> bool:
        if diff_id not in self._refused:
            for offer in self._offers.get(diff_id, ()):
                store.layers.offer(diff_id, offer.descriptor, offer.origin)
        return store.layers.available(diff_id)

    def recipe(self, key: str) -> RecipeRecord | None:
        """The recipe of a record that has one, to compare a miss with."""
        found = next((record for record in self._records.get(key, ()) if record.recipe), None)
        return RecipeRecord(key, found.recipe) if found is not None else None

    def equal_steps(self, lineage: str, diff_id: str) -> list[StepRecord]:
        """The records of one place that gave this layer."""
        wanted = place(lineage, self._lineage)
        return [record for record in self._all() if wanted and (record.lineage, record.diff_id) == (wanted, diff_id)]

    def _all(self) -> Iterator[StepRecord]:
        for records in self._records.values():
            yield from records

    def refuse(self, diff_ids: Iterable[str]) -> bool:
        """Do without these layers from now on: nobody has their bytes. Whether that changes anything."""
        claimed = {record.diff_id for record in self._all()}
        refused = claimed.intersection(diff_ids) - self._refused
        self._refused |= refused
        return bool(refused)


def _build_of(steps: tuple[BuiltStep, ...], name: str) -> Build:
    """What stands for the build that wrote a cache: no record of it is here."""
    return Build(
        build=name,
        started=0.0,
        seconds=0.0,
        outcome=DONE,
        project="",
        context="",
        dockerfile="",
        keys=KEYS,
        steps=steps,
    )


def fetch_layers(store: Store, diff_ids: Sequence[str]) -> None:
    """Have the layers here that only caches hold, several at once. Raises MissingLayer, which names all that cannot be
    had."""
    wanted: list[str] = []
    missing: list[str] = []
    for diff_id in dict.fromkeys(diff_ids):
        record = store.layers.record(diff_id)
        if record is None:
            missing.append(diff_id)
        elif store.layers.is_claim(record):
            wanted.append(diff_id)
    failure = _fetch_all(store, wanted, missing) if wanted else None
    if missing:
        raise MissingLayer(missing, store.root, failure)


def _fetch_all(store: Store, diff_ids: Sequence[str], missing: list[str]) -> BuilderError | None:
    """Fetch layers, several at once. Those that cannot be had are added to `missing`; returns why one cannot."""
    from concurrent.futures import ThreadPoolExecutor

    failure = None
    pool = ThreadPoolExecutor(_JOBS, "fetch")
    try:
        for future in [pool.submit(store.layers.ensure_blob, diff_id) for diff_id in diff_ids]:
            try:
                future.result()
            except MissingLayer as error:
                missing.extend(error.diff_ids)
                failure = error.failure
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for a server that stalls
    return failure
