"""The threads behind a large layer: one hashes, some compress, one writes; the caller reads meanwhile.

All hold to the order of the blocks, and at most a few blocks are in memory, so that stays flat. The first failure
anywhere is raised to the caller at its next call; the others then only drain their queues, so nobody ever waits for a
thread that is gone.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from builder.filesystem.memory import keep_freed_memory

Load = Callable[[], tuple[bytes, bytes]]
"""Gives a block that need not be compressed: uncompressed, and as it is to be written."""

_LOADED = 4  # blocks that are in memory at once, of those that are loaded


class _Job:
    """A block on its way: compressed, or loaded, by one thread, awaited by the writing one."""

    __slots__ = ("block", "done", "load", "result")

    def __init__(self, block: bytes, load: Load | None = None) -> None:
        self.block = block
        self.load = load
        self.result = b""
        self.done = threading.Event()


class Pipeline:
    """Compress blocks side by side with `encode` and pass the results in order to `write`, which one thread calls.

    `checksum(block, so_far)` is folded over the blocks. `threads` is the number of compressing ones, by default that of
    the cores.
    """

    def __init__(
        self,
        encode: Callable[[bytes], bytes],
        write: Callable[[bytes], None],
        checksum: Callable[[bytes, int], int] | None,
        threads: int | None = None,
    ) -> None:
        keep_freed_memory()
        self._encode = encode
        self._write = write
        self._checksum = checksum
        self._failure: BaseException | None = None
        self._stopped = False
        self._hash = hashlib.sha256()
        self._crc = 0
        workers = threads or min(8, len(os.sched_getaffinity(0)))
        self._to_hash: SimpleQueue[_Job | bytes | None] = SimpleQueue()
        self._to_encode: SimpleQueue[_Job | None] = SimpleQueue()
        self._to_write: SimpleQueue[_Job | None] = SimpleQueue()
        # How many blocks may wait, of those that are given and, for hashing and for writing, of those that are loaded.
        self._room_to_hash = threading.Semaphore(workers + 2)
        self._room_to_encode = threading.Semaphore(workers + 2)
        self._room_to_write = threading.Semaphore(2 * workers + 2)
        self._loaded_to_hash = threading.Semaphore(_LOADED)
        self._loaded_to_write = threading.Semaphore(_LOADED)
        self._turn = threading.Lock()
        self._workers = workers
        self._threads: list[threading.Thread] = []
        for target in [self._hashing, self._writing] + [self._encoding] * workers:
            thread = threading.Thread(target=target, name="layer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def submit(self, block: bytes) -> None:
        """Pass on the next block; waits while too many are on their way."""
        if self._failure is not None:
            raise self._failure
        job = _Job(block)
        # All room first: who is interrupted while it waits leaves no thread with a block that never comes.
        for room in (self._room_to_hash, self._room_to_encode, self._room_to_write):
            room.acquire()
        self._to_hash.put(block)
        self._to_encode.put(job)
        self._to_write.put(job)

    def submit_loaded(self, load: Load) -> None:
        """Have the next block loaded by a thread once it is its turn; waits for nothing."""
        if self._failure is not None:
            raise self._failure
        job = _Job(b"", load)
        self._to_encode.put(job)
        self._to_hash.put(job)
        self._to_write.put(job)

    def finish(self) -> tuple[str, int]:
        """Wait for everything; returns the digest and the checksum of all blocks."""
        self._stop()
        if self._failure is not None:
            raise self._failure
        return "sha256:" + self._hash.hexdigest(), self._crc

    def abort(self) -> None:
        """Give up: nothing more is compressed or written, and no thread is left."""
        if self._failure is None:
            self._failure = RuntimeError("the layer was given up")
        self._stop()

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._to_hash.put(None)
        self._to_write.put(None)
        for _ in range(self._workers):
            self._to_encode.put(None)
        for thread in self._threads:
            thread.join()

    def _hashing(self) -> None:
        while (item := self._to_hash.get()) is not None:
            if isinstance(item, _Job):
                item.done.wait()
                block, item.block = item.block, b""
                room = self._loaded_to_hash
            else:
                block, room = item, self._room_to_hash
            del item
            if self._failure is None:
                self._hash.update(block)
                if self._checksum is not None:
                    self._crc = self._checksum(block, self._crc)
            del block  # the next one is waited for
            room.release()

    def _encoding(self) -> None:
        while (job := self._next_to_encode()) is not None:
            if self._failure is None:
                try:
                    if job.load is not None:
                        job.block, job.result = job.load()
                    else:
                        job.result = self._encode(job.block)
                except BaseException as error:
                    self._failure = error
            if job.load is None:
                job.block = b""
                self._room_to_encode.release()
            job.done.set()

    def _next_to_encode(self) -> _Job | None:
        """The next job, with room for it if it is to be loaded: whoever hashes and writes waits for the first of them,
        so nobody else takes that room meanwhile."""
        with self._turn:
            job = self._to_encode.get()
            if job is not None and job.load is not None:
                self._loaded_to_hash.acquire()
                self._loaded_to_write.acquire()
            return job

    def _writing(self) -> None:
        while (job := self._to_write.get()) is not None:
            job.done.wait()
            if self._failure is None:
                try:
                    self._write(job.result)
                except BaseException as error:
                    self._failure = error
            job.result = b""
            (self._room_to_write if job.load is None else self._loaded_to_write).release()
