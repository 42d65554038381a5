"""Layers on their way: those of one stack are fetched side by side, and the lowest is unpacked while it arrives.

Nobody relies on what was read of a blob that is not complete: a snapshot's content is compared with its diff ID, and
the blob with its digest.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from builder.store.records import LayerRecord

JOBS = 4  # layers fetched at once
_LOOK_AGAIN = 0.005  # seconds


class _Arrival:
    """The fetch of one layer's blob: what it failed with, once it is `done`."""

    def __init__(self, record: LayerRecord) -> None:
        self.record = record
        self.done = threading.Event()
        self.error: BaseException | None = None

    def wait(self) -> None:
        self.done.wait()
        if self.error is not None:
            raise self.error


class Arriving:
    """Fetches layers with `fetch`, the first of `records` first. Files that are not complete are in `partial`, named by
    the hexadecimal part of their digests."""

    def __init__(self, records: Sequence[LayerRecord], fetch: Callable[[LayerRecord], object], partial: str) -> None:
        self._fetch = fetch
        self._partial = partial
        self._arrivals = {record.diff_id: _Arrival(record) for record in records}
        self._waiting = deque(self._arrivals.values())
        for number in range(min(JOBS, len(self._arrivals))):
            # Daemons: after an interrupt nobody waits for a server that stalls, or for another process that fetches.
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                arrival = self._waiting.popleft()
            except IndexError:
                return
            try:
                self._fetch(arrival.record)
            except BaseException as error:
                arrival.error = error
            arrival.done.set()

    def stream(self, diff_id: str) -> Following | None:
        """The blob's bytes from their beginning, as they arrive; None if it is not on its way, or arrived already."""
        arrival = self._arrivals.get(diff_id)
        if arrival is None:
            return None
        path = os.path.join(self._partial, arrival.record.digest.partition(":")[2])
        while not arrival.done.is_set():
            try:
                return Following(os.open(path, os.O_RDONLY | os.O_CLOEXEC), arrival)
            except FileNotFoundError:
                arrival.done.wait(_LOOK_AGAIN)
        return None

    def record(self, diff_id: str) -> LayerRecord | None:
        """The form of a layer that is on its way, or arrived; None if none is."""
        arrival = self._arrivals.get(diff_id)
        return arrival.record if arrival is not None else None

    def failure(self, diff_id: str) -> BaseException | None:
        """What the fetch of a layer failed with, if it did so far."""
        arrival = self._arrivals.get(diff_id)
        return arrival.error if arrival is not None else None

    def wait(self, diff_id: str) -> None:
        """Wait until a layer is here, if it is on its way. Raises what its fetch failed with."""
        if diff_id in self._arrivals:
            self._arrivals[diff_id].wait()

    def close(self) -> None:
        """Begin no more fetches."""
        self._waiting.clear()


class Following:
    """Reads a file that grows until an arrival is done. Where that fails, so does reading. Another thread may give up
    meanwhile, as an interrupt does."""

    def __init__(self, descriptor: int, arrival: _Arrival) -> None:
        self._descriptor = descriptor
        self._arrival = arrival
        self._given_up = False

    @property
    def record(self) -> LayerRecord:
        """The form of the layer whose bytes these are."""
        return self._arrival.record

    def read(self, size: int, /) -> bytes:
        while True:
            complete = self._arrival.done.is_set()
            data = os.read(self._descriptor, size)
            if data:
                return data
            if complete:
                self._arrival.wait()
                return b""
            if self._given_up:
                return b""
            self._arrival.done.wait(_LOOK_AGAIN)

    def give_up(self) -> None:
        """Let `read` end with what is there."""
        self._given_up = True

    def close(self) -> None:
        os.close(self._descriptor)
