"""The threads behind a large layer: one hashes, some compress, one writes; the caller reads meanwhile.

All hold to the order of the blocks, and at most a few blocks are on their way, so memory stays flat. The first failure
anywhere is raised to the caller at its next call; the others then only drain their queues, so nobody ever waits for a
thread that is gone.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from queue import Queue


class _Job:
    """A block on its way: compressed by one thread, awaited by the writing one."""

    __slots__ = ("block", "done", "result")

    def __init__(self, block: bytes) -> None:
        self.block = block
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
        self._encode = encode
        self._write = write
        self._checksum = checksum
        self._failure: BaseException | None = None
        self._stopped = False
        self._hash = hashlib.sha256()
        self._crc = 0
        workers = threads or min(8, len(os.sched_getaffinity(0)))
        self._to_hash: Queue[bytes | None] = Queue(workers + 2)
        self._to_encode: Queue[_Job | None] = Queue(workers + 2)
        self._to_write: Queue[_Job | None] = Queue(2 * workers + 2)
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
        self._to_hash.put(block)
        self._to_write.put(job)
        self._to_encode.put(job)

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
        while (block := self._to_hash.get()) is not None:
            if self._failure is None:
                self._hash.update(block)
                if self._checksum is not None:
                    self._crc = self._checksum(block, self._crc)

    def _encoding(self) -> None:
        while (job := self._to_encode.get()) is not None:
            if self._failure is None:
                try:
                    job.result = self._encode(job.block)
                except BaseException as error:
                    self._failure = error
            job.block = b""
            job.done.set()

    def _writing(self) -> None:
        while (job := self._to_write.get()) is not None:
            job.done.wait()
            if self._failure is None:
                try:
                    self._write(job.result)
                except BaseException as error:
                    self._failure = error
