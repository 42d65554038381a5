"""A stream as chunks, hashed on the way, read ahead by a thread once it proves to be large."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from builder.filesystem.archive import CHUNK, Readable

_AHEAD = 4  # chunks of 1 MiB


class ReadAhead:
    """Iterates over a stream's chunks. `digest` (like `sha256:…`) and `size` are those of all bytes, once it ended.

    Decompression, which happens inside `stream.read`, and hashing then overlap with what the consumer does. Use it as
    a context manager: leaving stops the thread, which may still be inside one `read` of the stream until then.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._stop: Callable[[], None] | None = None
        self.size = 0

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(2):
            chunk = self._next()
            if not chunk:
                return
            yield chunk
        yield from self._threaded()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stop is not None:
            self._stop()

    def _next(self) -> bytes:
        chunk = self._stream.read(CHUNK)
        self._hash.update(chunk)
        self.size += len(chunk)
        return chunk

    def _threaded(self) -> Iterator[bytes]:
        import threading
        from queue import Queue

        queue: Queue[bytes | BaseException] = Queue(_AHEAD)
        stopped = threading.Event()

        def read() -> None:
            try:
                while not stopped.is_set():
                    chunk = self._next()
                    queue.put(chunk)
                    if not chunk:
                        return
            except BaseException as error:
                queue.put(error)

        thread = threading.Thread(target=read, name="read ahead", daemon=True)

        def stop() -> None:
            stopped.set()
            give_up = getattr(self._stream, "give_up", None)
            if give_up is not None:
                give_up()
            while thread.is_alive():
                while not queue.empty():
                    queue.get()
                thread.join(0.005)

        self._stop = stop
        thread.start()
        while True:
            item = queue.get()
            if isinstance(item, BaseException):
                raise item
            if not item:
                thread.join()
                return
            yield item
