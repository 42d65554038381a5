"""A stream as chunks, hashed on the way, read ahead by threads once it proves to be large."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from builder.filesystem.archive import CHUNK
from builder.filesystem.memory import keep_freed_memory
from builder.filesystem.readable import Readable
from builder.oci.digests import StreamHasher

_SMALL = 2 << 20  # bytes that are not worth a thread
_AHEAD = 4  # chunks of at most 1 MiB, before and after they are hashed


class ReadAhead:
    """Iterates over a stream's chunks. `digest` (like `sha256:…`) and `size` are those of all bytes, once it ended.

    Decompression, which happens inside `stream.read`, and hashing then overlap with each other and with what the
    consumer does. Use it as a context manager: leaving stops the threads, of which one may still be inside one `read`
    of the stream until then.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        # Larger chunks would have to be put together from what a decompressor gives at once.
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._hash = StreamHasher()
        self._stop: Callable[[], None] | None = None
        self.size = 0

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        while self.size < _SMALL:
            chunk = self._read(CHUNK)
            if not chunk:
                return
            self._add(chunk)
            yield chunk
        yield from self._threaded()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stop is not None:
            self._stop()

    def _add(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)

    def _threaded(self) -> Iterator[bytes]:
        import threading
        from queue import Queue

        keep_freed_memory()
        # An empty chunk, or what reading failed with, is the last thing in each.
        to_hash: Queue[bytes | BaseException] = Queue(_AHEAD)
        ready: Queue[bytes | BaseException] = Queue(_AHEAD)
        stopped = threading.Event()

        def read() -> None:
            try:
                while not stopped.is_set() and (chunk := self._read(CHUNK)):
                    to_hash.put(chunk)
            except BaseException as error:
                to_hash.put(error)
            else:
                to_hash.put(b"")

        def add() -> None:
            while True:
                item = to_hash.get()
                try:
                    if isinstance(item, bytes) and not stopped.is_set():
                        self._add(item)
                except BaseException as error:
                    item = error
                ready.put(item)
                if isinstance(item, BaseException) or not item:
                    return

        reader, hasher = (threading.Thread(target=work, name="read ahead", daemon=True) for work in (read, add))

        def stop() -> None:
            stopped.set()
            give_up = getattr(self._stream, "give_up", None)
            if give_up is not None:
                give_up()
            for thread, queue in ((hasher, ready), (reader, to_hash)):
                while thread.is_alive():
                    while not queue.empty():
                        queue.get()
                    thread.join(0.005)

        self._stop = stop
        reader.start()
        hasher.start()
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            if not item:
                return
            yield item
